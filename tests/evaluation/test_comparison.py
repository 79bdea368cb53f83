from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, softmax
from scipy.stats import binomtest, chi2, norm

from plankwise.evaluation.comparison import (
    Pair,
    behaviour,
    chance_corrected,
    mcnemar,
    resampled_scores,
    retained_performance,
    score_interval,
)
from plankwise.evaluation.metrics import METRICS, Metric

ADDITIVE = [name for name, metric in METRICS.items() if metric.reduce is not None]


def noisy(labels, accuracy, seed, classes=2):
    """Logits that are right with the given probability."""
    draw = np.random.default_rng(seed)
    wrong = (labels + draw.integers(1, classes, len(labels))) % classes
    chosen = np.where(draw.random(len(labels)) < accuracy, labels, wrong)
    return np.eye(classes)[chosen] + 0.1 * draw.random((len(labels), classes))


def pair(size=300, old=0.85, new=0.8, classes=3, seed=0):
    labels = np.random.default_rng(seed).integers(0, classes, size)
    return Pair(labels, noisy(labels, old, seed + 1, classes), noisy(labels, new, seed + 2, classes))


def multi_pair(size=300, seed=0):
    draw = np.random.default_rng(seed)
    labels = (draw.random((size, 3)) < 0.4).astype(np.float32)
    return Pair(labels, *(3 * labels - 1.5 + draw.normal(size=(size, 3)) for _ in range(2)))


def width(interval):
    return interval.high - interval.low


class TestRetained:
    @pytest.mark.parametrize("metric", METRICS)
    @pytest.mark.parametrize("make", [pair, multi_pair])
    def test_identical_models_retain_exactly_everything(self, metric, make):
        same = make(size=120)
        kept = retained_performance([Pair(same.labels, same.baseline, same.baseline)], metric, 100)
        assert (kept.value, kept.low, kept.high) == (1.0, 1.0, 1.0)

    def test_is_the_ratio_of_the_scores(self):
        one = pair()
        scores = [METRICS["macro_f1"](one.labels, logits) for logits in (one.compressed, one.baseline)]
        kept = retained_performance([one], "macro_f1", 500)
        assert kept.value == pytest.approx(scores[0] / scores[1])
        assert kept.low < kept.value < kept.high

    def test_of_several_seeds_is_the_ratio_of_the_means(self):
        pairs = [pair(old=0.9, new=0.6), pair(old=0.5, new=0.5)]
        old, new = (
            np.mean([METRICS["accuracy"](each.labels, getattr(each, which)) for each in pairs])
            for which in ("baseline", "compressed")
        )
        assert retained_performance(pairs, "accuracy", 100).value == pytest.approx(new / old)

    def test_is_paired(self):
        """Two models that err on nearly the same examples are compared far more sharply than each is measured."""
        one = pair(size=1000, old=0.7)
        close = one.baseline.copy()
        close[:10] = close[:10, ::-1]
        kept = retained_performance([Pair(one.labels, one.baseline, close)], "accuracy", 1000)
        alone = score_interval([one.labels], [close], "accuracy", 1000)
        assert width(kept) < width(alone) / 3

    def test_is_a_function_of_the_seed(self):
        first, again, other = (retained_performance([pair()], "accuracy", 200, seed) for seed in (1, 1, 2))
        assert first == again
        assert first.value == other.value
        assert first != other


class TestScoreInterval:
    @pytest.mark.parametrize("accuracy", [0.6, 0.9])
    def test_is_close_to_the_normal_approximation(self, accuracy):
        size = 2000
        labels = np.random.default_rng(0).integers(0, 2, size)
        interval = score_interval([labels], [noisy(labels, accuracy, 1)], "accuracy", 4000)
        margin = norm.ppf(0.975) * math.sqrt(interval.value * (1 - interval.value) / size)
        assert interval.low == pytest.approx(interval.value - margin, abs=0.08 * margin)
        assert interval.high == pytest.approx(interval.value + margin, abs=0.08 * margin)

    @pytest.mark.parametrize("metric", ["auroc", "average_precision", "macro_f1"])
    @pytest.mark.parametrize("classes", [2, 3])
    def test_stays_finite_where_a_class_is_rare(self, metric, classes):
        labels = np.zeros(40, dtype=int)
        labels[:classes] = range(classes)
        logits = np.random.default_rng(0).normal(size=(40, classes))
        interval = score_interval([labels], [logits], metric, 200)
        assert 0 <= interval.low <= interval.high <= 1


class TestResampling:
    @pytest.mark.parametrize("metric", ADDITIVE)
    @pytest.mark.parametrize("make", [pair, multi_pair])
    def test_counts_equal_scoring_the_drawn_rows_one_by_one(self, metric, make, monkeypatch):
        one = make(size=80)
        runs = [(one.labels, one.baseline), (one.labels, one.compressed)]
        fast = resampled_scores(runs, metric, 40, seed=3)
        monkeypatch.setitem(METRICS, "slow", Metric(direct=METRICS[metric]))
        assert fast == pytest.approx(resampled_scores(runs, "slow", 40, seed=3), abs=1e-12)
        assert np.ptp(fast) > 0

    def test_draws_as_many_examples_as_there_are_with_replacement(self, monkeypatch):
        drawn = []
        monkeypatch.setitem(METRICS, "spy", Metric(direct=lambda labels, logits: drawn.append(labels) or 0.0))
        resampled_scores([(np.arange(200), np.zeros((200, 2)))], "spy", 30, seed=0)
        assert {len(rows) for rows in drawn} == {200}
        assert np.mean([len(set(rows)) for rows in drawn]) == pytest.approx(200 * (1 - math.exp(-1)), rel=0.02)

    def test_several_seeds_see_the_same_examples(self, monkeypatch):
        drawn = []
        monkeypatch.setitem(METRICS, "spy", Metric(direct=lambda labels, logits: drawn.append(labels.tolist()) or 0.0))
        resampled_scores([(np.arange(50), np.zeros((50, 2)))] * 2, "spy", 10, seed=0)
        assert drawn[:10] == drawn[10:]

    def test_the_hierarchy_is_wider_than_the_pool_where_seeds_differ(self):
        labels = np.random.default_rng(0).integers(0, 2, 400)
        logits = [noisy(labels, accuracy, seed) for seed, accuracy in enumerate((0.6, 0.75, 0.9))]
        several = score_interval([labels] * 3, logits, "accuracy", 1000)
        pooled = score_interval([np.tile(labels, 3)], [np.vstack(logits)], "accuracy", 1000)
        assert several.value == pytest.approx(pooled.value)
        assert width(several) > 2 * width(pooled)

    def test_equal_seeds_add_no_width(self):
        labels = np.random.default_rng(0).integers(0, 2, 400)
        logits = noisy(labels, 0.8, 1)
        several = score_interval([labels] * 3, [logits] * 3, "accuracy", 1000)
        assert width(several) == pytest.approx(width(score_interval([labels], [logits], "accuracy", 1000)), rel=0.1)


class TestBehaviour:
    def test_flips_and_loyalty_by_hand(self):
        labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
        old = np.eye(3)[[0, 0, 0, 1, 1, 1, 0, 2, 2, 1]]  # right: 1 1 1 0 1 1 0 0 1 0
        new = np.eye(3)[[0, 1, 1, 0, 1, 1, 2, 2, 0, 2]]  # right: 1 0 0 1 1 1 0 0 0 1
        told = behaviour(Pair(labels, old, new))
        assert told["label_loyalty"] == 0.4  # one pair that differs is wrong both times
        assert (told["negative_flip_rate"], told["positive_flip_rate"]) == (0.3, 0.2)
        assert told["mcnemar_p"] == pytest.approx(binomtest(3, 5).pvalue) == pytest.approx(1.0)

    def test_flips_of_several_labels_count_whole_examples(self):
        labels = np.array([[1, 0], [1, 0], [0, 0], [1, 1]])
        old = np.array([[1, -1], [1, -1], [1, -1], [1, 1]])
        new = np.array([[1, -1], [1, 1], [-1, -1], [1, 1]])
        told = behaviour(Pair(labels, old, new))
        assert told["label_loyalty"] == 0.5
        assert (told["negative_flip_rate"], told["positive_flip_rate"]) == (0.25, 0.25)

    @pytest.mark.parametrize("make", [pair, multi_pair])
    @pytest.mark.parametrize("seed", range(3))
    def test_flips_differ_by_what_accuracy_loses(self, make, seed):
        one = make(seed=seed)
        told = behaviour(one)
        old, new = (METRICS["accuracy"](one.labels, logits) for logits in (one.baseline, one.compressed))
        assert told["negative_flip_rate"] - told["positive_flip_rate"] == pytest.approx(old - new)
        assert 1 - told["label_loyalty"] >= told["negative_flip_rate"] + told["positive_flip_rate"] - 1e-12

    def test_probability_loyalty_equals_a_loop(self):
        one = pair(size=50)
        old, new = softmax(one.baseline, axis=1), softmax(one.compressed, axis=1)
        slow = np.mean([1 - jensenshannon(p, q, base=2) for p, q in zip(old, new, strict=True)])
        assert behaviour(one)["probability_loyalty"] == pytest.approx(slow)

    def test_probability_loyalty_of_several_labels_equals_a_loop(self):
        one = multi_pair(size=30)
        old, new = expit(one.baseline).ravel(), expit(one.compressed).ravel()
        slow = np.mean([1 - jensenshannon([p, 1 - p], [q, 1 - q], base=2) for p, q in zip(old, new, strict=True)])
        assert behaviour(one)["probability_loyalty"] == pytest.approx(slow)

    def test_probability_loyalty_by_hand(self):
        p, q = np.array([0.9, 0.1]), np.array([0.5, 0.5])
        middle = (p + q) / 2
        divergence = (p * np.log2(p / middle)).sum() / 2 + (q * np.log2(q / middle)).sum() / 2
        told = behaviour(Pair(np.array([0]), np.log(p)[None], np.log(q)[None]))
        assert told["probability_loyalty"] == pytest.approx(1 - math.sqrt(divergence))

    @pytest.mark.parametrize("make", [pair, multi_pair])
    def test_ends_of_the_scale(self, make):
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
    def test_is_exact_for_few_pairs(self, lost, won, p):
        assert mcnemar(lost, won) == pytest.approx(p) == pytest.approx(mcnemar(won, lost))

    @pytest.mark.parametrize(("lost", "won"), [(25, 0), (13, 12), (40, 20), (121, 59)])
    def test_is_chi_square_for_many(self, lost, won):
        statistic = (lost - won) ** 2 / (lost + won)
        assert mcnemar(lost, won) == pytest.approx(chi2.sf(statistic, 1)) == pytest.approx(mcnemar(won, lost))
        assert mcnemar(lost, won) == pytest.approx(2 * norm.sf(math.sqrt(statistic)))

    def test_turns_at_25_pairs(self):
        assert mcnemar(17, 7) == pytest.approx(binomtest(17, 24).pvalue)
        assert mcnemar(18, 7) == pytest.approx(chi2.sf(121 / 25, 1))
        assert mcnemar(18, 7) != pytest.approx(binomtest(18, 25).pvalue)


class TestChance:
    @pytest.mark.parametrize(
        ("new", "old", "chance", "kept"), [(0.88, 0.9, 0.7, 0.9), (0.5, 0.9, 0.7, -1.0), (0.9, 0.9, 0.7, 1.0)]
    )
    def test_is_what_is_kept_above_the_guess(self, new, old, chance, kept):
        assert chance_corrected(new, old, chance) == pytest.approx(kept)

    @pytest.mark.parametrize("old", [0.7, 0.6])
    def test_is_nothing_where_the_baseline_is_no_better_than_the_guess(self, old):
        assert chance_corrected(0.8, old, 0.7) is None
