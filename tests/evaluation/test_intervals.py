"""Bootstrap intervals: against theory, and against scoring the drawn rows one by one."""

from __future__ import annotations

import math
from functools import partial
from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

from noisy_predictions import Make, multi_pair, noisy, pair, score_pair, width
from plankwise.data.metric_names import OF_CLASSES, OF_SCORES
from plankwise.evaluation import intervals
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.intervals import interval_of, percentile_interval, resampled_scores, score_interval
from plankwise.evaluation.metrics import METRICS, Array, Metric


def of_few_scores(size: int) -> Pair:
    """Many examples share a score, and of one class there are so few that some resamples have none."""
    labels = np.random.default_rng(0).integers(1, 3, size)
    labels[:2] = 0
    old, new = (noisy(labels, accuracy, 1, classes=3).round(1) for accuracy in (0.8, 0.6))
    return Pair(labels, old, new)


def test_the_ends_are_percentiles_of_the_resamples_on_which_the_statistic_is_defined() -> None:
    resampled = np.array([np.nan, *np.arange(201.0), np.nan])
    assert percentile_interval(resampled) == (5.0, 195.0)
    assert interval_of(7.0, resampled).model_dump() == {"value": 7.0, "low": 5.0, "high": 195.0}


class TestScoreInterval:
    @pytest.mark.parametrize("accuracy", [0.6, 0.9])
    def test_is_close_to_the_normal_approximation(self, accuracy: float) -> None:
        size = 2000
        labels = np.random.default_rng(0).integers(0, 2, size)
        interval = score_interval([labels], [noisy(labels, accuracy, 1)], "accuracy", 4000)
        margin = norm.ppf(0.975) * math.sqrt(interval.value * (1 - interval.value) / size)
        assert interval.low == pytest.approx(interval.value - margin, abs=0.08 * margin)
        assert interval.high == pytest.approx(interval.value + margin, abs=0.08 * margin)

    @pytest.mark.parametrize("metric", ["auroc", "average_precision", "macro_f1"])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_stays_finite_where_a_class_is_rare(self, metric: str, classes: int) -> None:
        labels = np.zeros(40, dtype=int)
        labels[:classes] = range(classes)
        logits = np.random.default_rng(0).normal(size=(40, classes))
        interval = score_interval([labels], [logits], metric, 40)
        assert 0 <= interval.low <= interval.high <= 1


class TestResampling:
    @pytest.mark.parametrize(
        ("make", "metric"),
        [
            *product([pair, partial(pair, classes=2), multi_pair, of_few_scores], OF_CLASSES),
            *product([score_pair], OF_SCORES),
        ],
    )
    def test_counts_equal_scoring_the_drawn_rows_one_by_one(
        self, metric: str, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = make(size=80)
        runs = [(one.labels, one.baseline), (one.labels, one.compressed)]
        monkeypatch.setattr(intervals, "AT_ONCE", 7)
        fast = resampled_scores(runs, metric, 40, seed=3)
        monkeypatch.setitem(METRICS, "slow", Metric(direct=METRICS[metric]))
        assert fast == pytest.approx(resampled_scores(runs, "slow", 40, seed=3), abs=1e-12)
        assert np.ptp(fast) > 0

    def test_draws_as_many_examples_as_there_are_with_replacement(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[Array] = []

        def spy(labels: Array, logits: Array) -> float:
            drawn.append(labels)
            return 0.0

        monkeypatch.setitem(METRICS, "spy", Metric(direct=spy))
        resampled_scores([(np.arange(200), np.zeros((200, 2)))], "spy", 30, seed=0)
        assert {len(rows) for rows in drawn} == {200}
        assert np.mean([len(set(rows)) for rows in drawn]) == pytest.approx(200 * (1 - math.exp(-1)), rel=0.02)

    def test_several_seeds_see_the_same_examples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[list[int]] = []

        def spy(labels: Array, logits: Array) -> float:
            drawn.append(labels.tolist())
            return 0.0

        monkeypatch.setitem(METRICS, "spy", Metric(direct=spy))
        resampled_scores([(np.arange(50), np.zeros((50, 2)))] * 2, "spy", 10, seed=0)
        assert drawn[:10] == drawn[10:]

    def test_the_hierarchy_is_wider_than_the_pool_where_seeds_differ(self) -> None:
        labels = np.random.default_rng(0).integers(0, 2, 400)
        logits = [noisy(labels, accuracy, seed) for seed, accuracy in enumerate((0.6, 0.75, 0.9))]
        several = score_interval([labels] * 3, logits, "accuracy", 1000)
        pooled = score_interval([np.tile(labels, 3)], [np.vstack(logits)], "accuracy", 1000)
        assert several.value == pytest.approx(pooled.value)
        assert width(several) > 2 * width(pooled)

    def test_equal_seeds_add_no_width(self) -> None:
        labels = np.random.default_rng(0).integers(0, 2, 400)
        logits = noisy(labels, 0.8, 1)
        several = score_interval([labels] * 3, [logits] * 3, "accuracy", 1000)
        assert width(several) == pytest.approx(width(score_interval([labels], [logits], "accuracy", 1000)), rel=0.1)
