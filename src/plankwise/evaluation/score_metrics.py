"""Scores of models that answer with a number: correlations with the true scores, and the share of their variance.

A model that answers one constant has failed: its correlation is 0, where libraries return NaN. True scores that are all
the same leave nothing to compare; the result is NaN then, and a bootstrap leaves such a resample out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Array = NDArray[Any]
CONSTANT = 1e-6  # standard deviation, as a share of the size of the scores, below which they are rounding errors


def are_scores(labels: Array) -> bool:
    """Return whether labels are numbers to come near to, rather than classes or flags."""
    return labels.ndim == 1 and labels.dtype.kind == "f"


def is_constant(scores: Array) -> bool:
    """Return whether scores do not differ by more than rounding errors."""
    return bool(np.std(scores) <= CONSTANT * max(1.0, float(np.abs(scores).max())))


def score_sums(labels: Array, logits: Array) -> Floats:
    """Return what each example adds to the sums that `pearson` and `r2` are computed of.

    Scores are taken from their means first, as differences of large sums would lose digits.

    Args:
        labels: [examples].
        logits: [examples, 1].

    Returns:
        1, y, p, y², p², y·p and (y − p)², [examples, 7]; of a constant p is 0.
    """
    given = np.asarray(labels, np.float64)
    answers = np.asarray(logits[:, 0], np.float64)
    true = given - given.mean()
    predicted = np.zeros_like(answers) if is_constant(answers) else answers - answers.mean()
    return np.stack(
        [np.ones_like(true), true, predicted, true**2, predicted**2, true * predicted, (given - answers) ** 2], axis=1
    )


def pearson(totals: Floats) -> Floats:
    """Compute the correlation r from sums of `score_sums`, over any leading dimensions."""
    count, true, predicted, true_squares, squares, products, _ = np.moveaxis(totals, -1, 0)
    spread, own = count * true_squares - true**2, count * squares - predicted**2
    return _correlation(count * products - true * predicted, spread, own, count * true_squares, count * squares)


def r2(totals: Floats) -> Floats:
    """Compute 1 − Σ(y − p)² / Σ(y − ȳ)², the share of the variance that is explained, from sums of `score_sums`."""
    count, true, _, true_squares, _, _, errors = np.moveaxis(totals, -1, 0)
    variance = true_squares - true**2 / count
    found: Floats = 1 - np.divide(
        errors, variance, out=np.full_like(variance, np.nan), where=variance > 1e-12 * true_squares
    )
    return found


def spearman(labels: Array, logits: Array) -> float:
    """Compute the correlation of ranks, ties having the mean of their ranks.

    Args:
        labels: [examples].
        logits: [examples, 1].
    """
    return float(weighted_spearman(labels, logits, np.ones((1, len(labels)), np.int64))[0])


def weighted_spearman(labels: Array, logits: Array, weights: Array) -> Floats:
    """Compute the correlation of ranks of each resample, [resamples].

    Args:
        labels: [examples].
        logits: [examples, 1].
        weights: how often each resample draws each example, [resamples, examples].
    """
    drawn = weights.astype(np.float64)
    answers = np.zeros(len(labels)) if is_constant(logits[:, 0]) else logits[:, 0]
    true, predicted = (_ranks(np.asarray(each, np.float64), drawn) for each in (labels, answers))
    count = drawn.sum(axis=1)
    sums = [(drawn * each).sum(axis=1) for each in (true, predicted, true**2, predicted**2, true * predicted)]
    spread, own = count * sums[2] - sums[0] ** 2, count * sums[3] - sums[1] ** 2
    return _correlation(count * sums[4] - sums[0] * sums[1], spread, own, count * sums[2], count * sums[3])


def mean_squared_error(labels: Array, logits: Array) -> float:
    """Compute the mean of (y − p)²; down is better."""
    return float(np.mean((np.asarray(labels, np.float64) - logits[:, 0]) ** 2))


def _ranks(scores: Floats, drawn: Floats) -> Floats:
    """Return the rank of each example in each resample, less the middle one, [resamples, examples]."""
    places = rankdata(scores, method="dense") - 1
    order = np.argsort(places, kind="stable")
    first = np.flatnonzero(np.diff(places[order], prepend=-1))
    groups = np.add.reduceat(drawn[:, order], first, axis=1)  # how often each score was drawn
    middle = groups.cumsum(axis=1) - groups / 2 - drawn.sum(axis=1, keepdims=True) / 2
    found: Floats = middle[:, places.astype(np.int64)]
    return found


def _correlation(shared: Floats, spread: Floats, own: Floats, size: Floats, own_size: Floats) -> Floats:
    """Return shared / √(spread · own): NaN where the true scores are all the same, 0 where the answers are."""
    varies, answered = spread > 1e-12 * size, own > 1e-12 * own_size
    found = np.divide(
        shared, np.sqrt(np.abs(spread * own)), out=np.zeros_like(np.asarray(shared)), where=varies & answered
    )
    return np.where(varies, np.clip(found, -1.0, 1.0), np.nan)
