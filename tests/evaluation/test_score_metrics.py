"""Scores of scores, against SciPy and scikit-learn, and on the edges where one side is constant."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_squared_error as sklearn_mse
from sklearn.metrics import r2_score

from noisy_predictions import score_pair
from plankwise.data.metric_names import OF_SCORES
from plankwise.evaluation.intervals import resampled_scores
from plankwise.evaluation.metrics import METRICS, majority_logits
from plankwise.evaluation.score_metrics import are_scores, is_constant, mean_squared_error, weighted_spearman


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_every_metric_equals_scipy_and_scikit_learn(seed: int, offset: float) -> None:
    one = score_pair(seed=seed)
    labels, logits = one.labels + offset, one.compressed + offset
    expected = {
        "spearman": spearmanr(labels, logits[:, 0]).statistic,
        "pearson": pearsonr(labels, logits[:, 0]).statistic,
        "r2": r2_score(labels, logits[:, 0]),
    }
    assert {name: METRICS[name](labels, logits) for name in OF_SCORES} == pytest.approx(expected, abs=1e-9)
    assert mean_squared_error(labels, logits) == pytest.approx(sklearn_mse(labels, logits[:, 0]))


def test_drawn_twice_is_the_same_as_being_there_twice() -> None:
    one = score_pair(size=40)
    weights = np.random.default_rng(0).integers(0, 3, (5, 40))
    slow = [spearmanr(np.repeat(one.labels, each), np.repeat(one.compressed[:, 0], each)).statistic for each in weights]
    assert weighted_spearman(one.labels, one.compressed, weights) == pytest.approx(slow)


@pytest.mark.parametrize("metric", ["spearman", "pearson"])
@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_a_model_that_answers_one_constant_has_failed(metric: str, noise: float) -> None:
    one = score_pair(size=50)
    logits = 3.3 + noise * one.compressed / np.abs(one.compressed).max()
    assert METRICS[metric](one.labels, logits) == 0.0
    assert (resampled_scores([(one.labels, logits)], metric, 10, seed=0) == 0).all()


@pytest.mark.parametrize("metric", OF_SCORES)
def test_true_scores_that_are_all_the_same_leave_nothing_to_compare(metric: str) -> None:
    assert np.isnan(METRICS[metric](np.full(20, 2.5), np.random.default_rng(0).normal(size=(20, 1))))


def test_the_mean_of_train_is_the_floor() -> None:
    one = score_pair()
    guess = majority_logits(one.labels, one.labels[:100])
    assert guess.shape == (300, 1)
    assert guess[0, 0] == pytest.approx(one.labels[:100].mean())
    assert [METRICS[name](one.labels, guess) for name in ("spearman", "pearson")] == [0, 0]
    assert METRICS["r2"](one.labels, majority_logits(one.labels, one.labels)) == pytest.approx(0, abs=1e-12)


def test_what_scores_and_constants_are() -> None:
    assert are_scores(np.array([0.0, 1.0]))
    assert not are_scores(np.array([0, 1]))
    assert not are_scores(np.ones((2, 2), np.float32))
    assert is_constant(np.full(5, 1e6) + 0.01)
    assert not is_constant(np.array([1e-3, 2e-3]))
