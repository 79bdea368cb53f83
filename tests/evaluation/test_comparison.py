"""What was kept: retained performance, its intervals, and how two models differ example by example."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, softmax
from scipy.stats import binomtest, chi2, norm

from noisy_predictions import Make, multi_pair, pair, score_pair, width
from plankwise.core.records import Interval
from plankwise.data.metric_names import OF_CLASSES, OF_SCORES
from plankwise.evaluation.comparison import (
    Pair,
    behaviour,
    chance_corrected,
    mcnemar,
    retained_performance,
)
from plankwise.evaluation.intervals import score_interval
from plankwise.evaluation.metrics import METRICS


def retained(pairs: list[Pair], metric: str, resamples: int, seed: int = 0) -> Interval:
    found = retained_performance(pairs, metric, resamples, seed)
    assert found is not None
    return found


class TestRetained:
    @pytest.mark.parametrize(
        ("make", "metric"), [*product([pair, multi_pair], OF_CLASSES), *product([score_pair], OF_SCORES)]
    )
    def test_identical_models_retain_exactly_everything(self, metric: str, make: Make) -> None:
        same = make(size=60)
        kept = retained([Pair(same.labels, same.baseline, same.baseline)], metric, 10)
        assert (kept.value, kept.low, kept.high) == (1.0, 1.0, 1.0)

    def test_is_the_ratio_of_the_scores(self) -> None:
        one = pair()
        scores = [METRICS["macro_f1"](one.labels, logits) for logits in (one.compressed, one.baseline)]
        kept = retained([one], "macro_f1", 500)
        assert kept.value == pytest.approx(scores[0] / scores[1])
        assert kept.low < scores[0] / scores[1] < kept.high

    def test_of_several_seeds_is_the_ratio_of_the_means(self) -> None:
        pairs = [pair(old=0.9, new=0.6), pair(old=0.5, new=0.5)]
        old, new = (
            np.mean([METRICS["accuracy"](each.labels, getattr(each, which)) for each in pairs])
            for which in ("baseline", "compressed")
        )
        assert retained(pairs, "accuracy", 100).value == pytest.approx(new / old)

    def test_is_paired(self) -> None:
        """Two models that err on nearly the same examples are compared far more sharply than each is measured."""
        one = pair(size=1000, old=0.7)
        close = one.baseline.copy()
        close[:10] = close[:10, ::-1]
        kept = retained([Pair(one.labels, one.baseline, close)], "accuracy", 1000)
        alone = score_interval([one.labels], [close], "accuracy", 1000)
        assert width(kept) < width(alone) / 3

    def test_is_a_function_of_the_seed(self) -> None:
        first, again, other = (retained([pair()], "accuracy", 200, seed) for seed in (1, 1, 2))
        assert first == again
        assert first.value == other.value
        assert first != other


class TestBehaviour:
    def test_flips_and_loyalty_by_hand(self) -> None:
        labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
        old = np.eye(3)[[0, 0, 0, 1, 1, 1, 0, 2, 2, 1]]  # right: 1 1 1 0 1 1 0 0 1 0
        new = np.eye(3)[[0, 1, 1, 0, 1, 1, 2, 2, 0, 2]]  # right: 1 0 0 1 1 1 0 0 0 1
        told = behaviour(Pair(labels, old, new))
        assert told["label_loyalty"] == 0.4  # one pair that differs is wrong both times
        assert (told["negative_flip_rate"], told["positive_flip_rate"]) == (0.3, 0.2)
        assert told["mcnemar_p"] == pytest.approx(binomtest(3, 5).pvalue) == pytest.approx(1.0)

    def test_flips_of_several_labels_count_whole_examples(self) -> None:
        labels = np.array([[1, 0], [1, 0], [0, 0], [1, 1]])
        old = np.array([[1, -1], [1, -1], [1, -1], [1, 1]])
        new = np.array([[1, -1], [1, 1], [-1, -1], [1, 1]])
        told = behaviour(Pair(labels, old, new))
        assert told["label_loyalty"] == 0.5
        assert (told["negative_flip_rate"], told["positive_flip_rate"]) == (0.25, 0.25)

    @pytest.mark.parametrize("make", [pair, multi_pair])
    @pytest.mark.parametrize("seed", range(3))
    def test_flips_differ_by_what_accuracy_loses(self, make: Make, seed: int) -> None:
        one = make(seed=seed)
        told = behaviour(one)
        old, new = (METRICS["accuracy"](one.labels, logits) for logits in (one.baseline, one.compressed))
        assert told["negative_flip_rate"] - told["positive_flip_rate"] == pytest.approx(old - new)
        assert 1 - told["label_loyalty"] >= told["negative_flip_rate"] + told["positive_flip_rate"] - 1e-12

    def test_probability_loyalty_equals_a_loop(self) -> None:
        one = pair(size=50)
        old, new = softmax(one.baseline, axis=1), softmax(one.compressed, axis=1)
        slow = np.mean([1 - jensenshannon(p, q, base=2) for p, q in zip(old, new, strict=True)])
        assert behaviour(one)["probability_loyalty"] == pytest.approx(slow)

    def test_probability_loyalty_of_several_labels_equals_a_loop(self) -> None:
        one = multi_pair(size=30)
        old, new = expit(one.baseline).ravel(), expit(one.compressed).ravel()
        slow = np.mean([1 - jensenshannon([p, 1 - p], [q, 1 - q], base=2) for p, q in zip(old, new, strict=True)])
        assert behaviour(one)["probability_loyalty"] == pytest.approx(slow)

    def test_probability_loyalty_by_hand(self) -> None:
        p, q = np.array([0.9, 0.1]), np.array([0.5, 0.5])
        middle = (p + q) / 2
        divergence = (p * np.log2(p / middle)).sum() / 2 + (q * np.log2(q / middle)).sum() / 2
        told = behaviour(Pair(np.array([0]), np.log(p)[None], np.log(q)[None]))
        assert told["probability_loyalty"] == pytest.approx(1 - math.sqrt(divergence))

    @pytest.mark.parametrize("make", [pair, multi_pair])
    def test_ends_of_the_scale(self, make: Make) -> None:
        one = make()
        same = behaviour(Pair(one.labels, one.baseline, one.baseline))
        assert same == pytest.approx(
            {
                "label_loyalty": 1.0,
                "probability_loyalty": 1.0,
                "negative_flip_rate": 0.0,
                "positive_flip_rate": 0.0,
                "mcnemar_p": 1.0,
            }
        )
        sure = 1e4 * (2 * np.eye(3)[np.arange(300) % 3] - 1)
        assert behaviour(Pair(one.labels, sure, -sure))["probability_loyalty"] == pytest.approx(0.0, abs=1e-6)


class TestMcNemar:
    @pytest.mark.parametrize(
        ("lost", "won", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (3, 1, 10 / 16), (8, 2, 0.109375)]
    )
    def test_is_exact_for_few_pairs(self, lost: int, won: int, p: float) -> None:
        assert mcnemar(lost, won) == pytest.approx(p) == pytest.approx(mcnemar(won, lost))

    @pytest.mark.parametrize(("lost", "won"), [(25, 0), (13, 12), (40, 20), (121, 59)])
    def test_is_chi_square_for_many(self, lost: int, won: int) -> None:
        statistic = (lost - won) ** 2 / (lost + won)
        assert mcnemar(lost, won) == pytest.approx(chi2.sf(statistic, 1)) == pytest.approx(mcnemar(won, lost))
        assert mcnemar(lost, won) == pytest.approx(2 * norm.sf(math.sqrt(statistic)))

    def test_turns_at_25_pairs(self) -> None:
        assert mcnemar(17, 7) == pytest.approx(binomtest(17, 24).pvalue)
        assert mcnemar(18, 7) == pytest.approx(chi2.sf(121 / 25, 1))
        assert mcnemar(18, 7) != pytest.approx(binomtest(18, 25).pvalue)


class TestChance:
    @pytest.mark.parametrize(
        ("new", "old", "chance", "kept"), [(0.88, 0.9, 0.7, 0.9), (0.5, 0.9, 0.7, -1.0), (0.9, 0.9, 0.7, 1.0)]
    )
    def test_is_what_is_kept_above_the_guess(self, new: float, old: float, chance: float, kept: float) -> None:
        assert chance_corrected(new, old, chance) == pytest.approx(kept)

    @pytest.mark.parametrize("old", [0.7, 0.6])
    def test_is_nothing_where_the_baseline_is_no_better_than_the_guess(self, old: float) -> None:
        assert chance_corrected(0.8, old, 0.7) is None


def test_nearly_equal_probabilities_are_loyal_without_a_warning() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(2000, 3))
    pair = Pair(draw.integers(0, 3, 2000), logits, logits + draw.normal(0, 1e-9, logits.shape))
    assert behaviour(pair)["probability_loyalty"] == pytest.approx(1.0, abs=1e-6)
