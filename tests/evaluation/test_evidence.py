"""The whole comparison on logits whose truth is known; BCa against SciPy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import f1_score

from plankwise.evaluation.bca import bca_interval
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.evidence import Examples, Question, class_f1, compare_pairs, seed_pairs
from plankwise.evaluation.floors import MAJORITY
from plankwise.evaluation.intervals import resampled_scores
from plankwise.evaluation.metrics import METRICS

CLASSES = ("common", "rare")
QUESTION = Question(metrics=("macro_f1", "accuracy"), resamples=400)


def model(labels: np.ndarray, right: float, seed: int, classes: int = 2) -> np.ndarray:
    """Logits that choose the true class with this probability, and another one otherwise."""
    draw = np.random.default_rng(seed)
    chosen = np.where(draw.random(len(labels)) < right, labels, (labels + 1) % classes)
    logits = np.eye(classes)[chosen] * draw.uniform(1, 3, (len(labels), 1))
    found: np.ndarray = logits + draw.normal(0, 0.1, logits.shape)
    return found


LABELS = (np.random.default_rng(0).random(2000) < 0.1).astype(int)
GOOD = model(LABELS, 0.9, 1)


def compared(pairs: list[Pair], **more: Any) -> dict[str, Any]:
    floors = {MAJORITY: np.tile([1.0, 0.0], (len(LABELS), 1))}
    found = compare_pairs(pairs, Examples(classes=CLASSES, floors=floors), QUESTION, **more)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_the_same_model_is_as_good_as_itself() -> None:
    found = compared([Pair(LABELS, GOOD, GOOD)])
    assert found["verdict"] == "non-inferior"
    metric = found["metrics"]["macro_f1"]
    assert metric["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert metric["retained"]["value"] == metric["chance_corrected"]["value"] == 1.0
    assert metric["difference_bca"] == metric["difference"]
    assert found["behaviour"]["label_loyalty"] == 1.0
    assert found["retraining_floor"] is None
    assert found["calibration"]["baseline"] == found["calibration"]["compressed"]


def test_losing_a_rare_class_is_seen_behind_a_mean_that_hardly_moves() -> None:
    """With ten classes, one of them lost, accuracy says little."""
    labels = np.random.default_rng(0).integers(0, 9, 4000)
    labels[:80] = 9
    old = model(labels, 0.99, 1, classes=10)
    new = old.copy()
    new[:60] = np.eye(10)[0] * 5
    names = tuple(f"c{each}" for each in range(10))
    question = Question(metrics=("accuracy",), margin=0.02, resamples=400)
    found = compare_pairs([Pair(labels, old, new)], Examples(classes=names), question)
    assert found["verdict"] == "non-inferior"
    verdicts = {each["class"]: each["verdict"] for each in found["classes"]}
    assert verdicts["c9"] == "inferior"
    assert [verdicts[name] for name in names[1:9]] == ["non-inferior"] * 8
    assert found["classes"][9]["rows"] == 80


def test_a_worse_model_is_inferior_and_a_noisy_one_cannot_be_told() -> None:
    assert compared([Pair(LABELS, GOOD, model(LABELS, 0.7, 2))])["verdict"] == "inferior"
    noisy = compared([Pair(LABELS, GOOD, model(LABELS, 0.9, 2))])["metrics"]["macro_f1"]
    assert noisy["verdict"] == "cannot tell"
    assert noisy["more_examples"] is None or noisy["more_examples"] > 0


def test_a_baseline_that_does_not_clear_the_majority_is_found() -> None:
    useless = model(LABELS, 0.5, 3)
    floors = compared([Pair(LABELS, useless, useless)])["metrics"]["accuracy"]["floors"]
    assert not floors[MAJORITY]["cleared"]
    floors = compared([Pair(LABELS, GOOD, GOOD)])["metrics"]["macro_f1"]["floors"]
    assert floors[MAJORITY]["cleared"]
    assert floors[MAJORITY]["lead"]["low"] > 0


def test_p_values_are_corrected_for_the_number_of_metrics() -> None:
    metrics = compared([Pair(LABELS, GOOD, model(LABELS, 0.895, 1))])["metrics"]
    p, adjusted = ([each[key] for each in metrics.values()] for key in ("p", "p_holm"))
    assert min(adjusted) == pytest.approx(min(1.0, 2 * min(p)))
    assert all(one <= other for one, other in zip(p, adjusted, strict=True))


def test_seeds_are_pooled_and_give_the_floor_of_flips() -> None:
    pairs = [Pair(LABELS, model(LABELS, 0.9, seed), model(LABELS, 0.9, seed + 10)) for seed in range(3)]
    found = compared(pairs)
    assert found["seeds"] == 3
    floor = found["retraining_floor"]
    assert floor["negative_flip_rate"] == pytest.approx(0.09, abs=0.02)  # right, then wrong: 0.9 · 0.1
    assert "mcnemar_p" not in floor
    assert len(seed_pairs(pairs)) == 3
    retrained = [Pair(LABELS, GOOD, GOOD)]
    assert compared([Pair(LABELS, GOOD, GOOD)], retrained=retrained)["retraining_floor"]["negative_flip_rate"] == 0


def test_thresholds_come_from_development_where_there_is_some() -> None:
    pair = Pair(LABELS, GOOD, model(LABELS, 0.8, 2))
    found = compared([pair], development=[pair])
    assert found["calibration"]["baseline"]["fitted_on"] == "development"
    (rare,) = [each for each in found["operating_points"] if each["class"] == "rare"]
    if rare["threshold"] is not None:
        assert rare["baseline"]["precision"] >= 0.9
    common = found["operating_points"][0]
    assert common["baseline"]["precision"] >= 0.9
    assert common["compressed"]["recall"] < common["baseline"]["recall"]


def test_operating_points_of_seeds_are_means_over_those_that_have_a_threshold() -> None:
    pairs = [Pair(LABELS, model(LABELS, 0.9, seed), model(LABELS, 0.8, seed + 10)) for seed in (1, 2)]
    alone = [compared([pair], development=[pair])["operating_points"][0] for pair in pairs]
    both = compared(pairs, development=pairs)["operating_points"][0]
    assert both["threshold"] == pytest.approx(np.mean([each["threshold"] for each in alone]))
    assert both["compressed"]["recall"] == pytest.approx(np.mean([each["compressed"]["recall"] for each in alone]))
    hopeless = Pair(LABELS, np.zeros_like(GOOD), GOOD)
    with_one_more = compared([pairs[0], hopeless], development=[pairs[0], hopeless])["operating_points"]
    rare = with_one_more[-1]
    assert rare["class"] == "rare"
    assert rare == {**compared([pairs[0]], development=[pairs[0]])["operating_points"][-1]}


def test_the_f1_of_a_class_agrees_with_scikit_learn() -> None:
    labels = np.random.default_rng(4).integers(0, 3, 200)
    logits = model(labels, 0.7, 5, classes=3)
    expected = f1_score(labels, logits.argmax(axis=1), average=None)
    assert [class_f1(index, 3)(labels, logits) for index in range(3)] == pytest.approx(expected)


def test_bca_agrees_with_scipy() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 150)
    pair = Pair(labels, model(labels, 0.95, 1), model(labels, 0.85, 2))
    old, new = (
        resampled_scores([(labels, logits)], "accuracy", 9999, 0) for logits in (pair.baseline, pair.compressed)
    )
    found = bca_interval([pair], METRICS["accuracy"], new - old)
    change = (pair.compressed.argmax(1) == labels).astype(float) - (pair.baseline.argmax(1) == labels)
    expected = bootstrap((change,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(1))
    assert found is not None
    assert found.value == pytest.approx(change.mean())
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.007)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.007)


def test_metrics_of_ranks_have_no_bca() -> None:
    assert bca_interval([Pair(LABELS, GOOD, GOOD)], METRICS["auroc"], np.zeros(10)) is None
