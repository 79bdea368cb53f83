"""Scores, all of them up-is-better, as functions of counts per example, so that a bootstrap costs one matrix product.

`count(labels, logits)` returns what each example adds, [examples, counts]; `reduce(totals)` computes the score from
summed counts, over any leading dimensions. Rank metrics have no such counts; they have `direct`, and `weighted` for
many resamples, which sorts the examples once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.metrics import average_precision_score, roc_auc_score

from plankwise.evaluation.score_metrics import (
    are_scores,
    pearson,
    r2,
    score_sums,
    spearman,
    weighted_spearman,
)

Floats = NDArray[np.float64]
Array = NDArray[Any]


@dataclass(frozen=True)
class Metric:
    """One metric: either additive (`reduce`), or computed from all examples at once (`direct`).

    Attributes:
        reduce: the score of summed counts.
        direct: the score of labels and logits.
        weighted: the same as `direct` of each resample, [resamples], given how often each draws each example,
            [resamples, examples].
    """

    reduce: Callable[[Floats], Floats] | None = None
    direct: Callable[[Array, Array], float] | None = None
    weighted: Callable[[Array, Array, Array], Floats] | None = None

    def __call__(self, labels: Array, logits: Array) -> float:
        """Score `logits`, [examples, classes], against `labels`, [examples] or [examples, classes]."""
        if self.direct is not None:
            return self.direct(labels, logits)
        assert self.reduce is not None
        return float(self.reduce(count(labels, logits).sum(axis=0)))


def decide(logits: Array) -> NDArray[np.int64]:
    """Choose the class of each example, [examples]."""
    chosen: NDArray[np.int64] = np.argmax(logits, axis=-1)
    return chosen


def decide_flags(logits: Array) -> NDArray[np.int64]:
    """Choose the labels of each example in a multi-label task, [examples, classes]: probability above one half."""
    return (logits > 0).astype(np.int64)


def probabilities(logits: Array, multi_label: bool) -> Floats:
    """Turn logits into probabilities: softmax over classes, or a sigmoid for each label."""
    found: Floats = expit(logits) if multi_label else softmax(logits, axis=-1)
    return found


def log_loss(labels: Array, logits: Array) -> float:
    """Compute the mean cross-entropy in nats: of the true class, or of each label of several; down is better.

    Args:
        labels: [examples], or [examples, classes] of 0 and 1.
        logits: [examples, classes].
    """
    if labels.ndim == 1:
        return float(-log_softmax(logits, axis=-1)[np.arange(len(labels)), labels].mean())
    return float(-np.where(labels == 1, log_expit(logits), log_expit(-logits)).mean())


def count(labels: Array, logits: Array) -> Floats:
    """Count for each example and class (true positive, predicted, actual), and whether the example is all right.

    Returns:
        [examples, 3 · classes + 2]; the last two columns are "right" and 1. Of scores what `score_sums` returns.
    """
    if are_scores(labels):
        return score_sums(labels, logits)
    classes = logits.shape[1]
    if labels.ndim == 1:
        actual, predicted = np.eye(classes)[labels], np.eye(classes)[decide(logits)]
    else:
        actual, predicted = labels.astype(float), decide_flags(logits).astype(float)
    right = (actual == predicted).all(axis=1, keepdims=True).astype(float)
    return np.hstack([actual * predicted, predicted, actual, right, np.ones_like(right)])


def _parts(totals: Floats) -> tuple[Floats, Floats, Floats]:
    classes = (totals.shape[-1] - 2) // 3
    return totals[..., :classes], totals[..., classes : 2 * classes], totals[..., 2 * classes : 3 * classes]


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _defined_ratio(above: Floats, below: Floats, where: NDArray[np.bool_]) -> Floats:
    found: Floats = np.divide(above, below, out=np.full(len(below), np.nan), where=where)
    return found


def _accuracy(totals: Floats) -> Floats:
    return totals[..., -2] / totals[..., -1]


def _macro_f1(totals: Floats) -> Floats:
    right, predicted, actual = _parts(totals)
    mean: Floats = _ratio(2 * right, predicted + actual).mean(axis=-1)
    return mean


def _micro_f1(totals: Floats) -> Floats:
    right, predicted, actual = (part.sum(axis=-1) for part in _parts(totals))
    return _ratio(np.asarray(2 * right), np.asarray(predicted + actual))


def _germeval_f1(totals: Floats) -> Floats:
    """GermEval's F: the harmonic mean of macro-precision and macro-recall, which is not the mean of the F1 scores."""
    right, predicted, actual = _parts(totals)
    precision, recall = _ratio(right, predicted).mean(axis=-1), _ratio(right, actual).mean(axis=-1)
    return _ratio(np.asarray(2 * precision * recall), np.asarray(precision + recall))


def _flags_and_scores(labels: Array, logits: Array) -> tuple[Array, Array]:
    """Return what ranks are computed on, one column for each label that is told from the others."""
    if labels.ndim == 1 and logits.shape[1] == 2:
        return labels[:, None], (logits[:, 1] - logits[:, 0])[:, None]
    flags = labels if labels.ndim == 2 else np.eye(logits.shape[1], dtype=int)[labels]
    return flags, probabilities(logits, labels.ndim == 2)


def _ranked(score: Callable[..., float]) -> Callable[[Array, Array], float]:
    def direct(labels: Array, logits: Array) -> float:
        flags, scores = _flags_and_scores(labels, logits)
        usable = [k for k in range(flags.shape[1]) if 0 < flags[:, k].sum() < len(flags)]
        if not usable:
            return float("nan")  # undefined; a bootstrap leaves such a resample out
        return float(np.mean([score(flags[:, k], scores[:, k]) for k in usable]))

    return direct


def _weighted_ranks(score: Callable[[Floats, Floats], Floats]) -> Callable[[Array, Array, Array], Floats]:
    def weighted(labels: Array, logits: Array, weights: Array) -> Floats:
        found = []
        for flag, column in zip(*(each.T for each in _flags_and_scores(labels, logits)), strict=True):
            order = np.argsort(-column, kind="stable")
            first = np.flatnonzero(np.diff(column[order], prepend=np.inf))  # of the examples that share a score
            drawn, positive = weights[:, order].astype(np.float64), flag[order] == 1
            counts = (np.add.reduceat(drawn * side, first, axis=1) for side in (positive, ~positive))
            found.append(score(*counts))
        columns = np.stack(found)
        usable = ~np.isnan(columns)
        return _defined_ratio(np.nansum(columns, axis=0), usable.sum(axis=0), usable.sum(axis=0) > 0)

    return weighted


def _auroc(positive: Floats, negative: Floats) -> Floats:
    """Compute the share of pairs that are in order, ties counting half; NaN without both kinds.

    Args:
        positive: numbers of positive examples with each score, from the highest score on, [resamples, scores].
        negative: the same of the negative ones.
    """
    beaten = negative.sum(axis=1, keepdims=True) - negative.cumsum(axis=1) + negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return _defined_ratio((positive * beaten).sum(axis=1), pairs, pairs > 0)


def _average_precision(positive: Floats, negative: Floats) -> Floats:
    """Compute the mean precision at each positive example, examples of one score counting as one step."""
    found = positive.cumsum(axis=1)
    precision = _ratio(found, found + negative.cumsum(axis=1))
    total = positive.sum(axis=1)
    both = (total > 0) & (negative.sum(axis=1) > 0)
    return _defined_ratio((positive * precision).sum(axis=1), total, both)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(_accuracy),
    "macro_f1": Metric(_macro_f1),
    "micro_f1": Metric(_micro_f1),
    "germeval_f1": Metric(_germeval_f1),
    "auroc": Metric(direct=_ranked(roc_auc_score), weighted=_weighted_ranks(_auroc)),
    "average_precision": Metric(direct=_ranked(average_precision_score), weighted=_weighted_ranks(_average_precision)),
    "spearman": Metric(direct=spearman, weighted=weighted_spearman),
    "pearson": Metric(pearson),
    "r2": Metric(r2),
}


def majority_logits(labels: Array, train_labels: Array, classes: int | None = None) -> Floats:
    """Make logits that always choose the class most frequent in train; for several labels, those above one half.

    Of scores it is always the mean of train.

    Args:
        labels: to be scored against, [examples] or [examples, classes].
        train_labels: of train, in the same form.
        classes: number of classes of a task with one label each; all of those that occur by default.
    """
    if are_scores(labels):
        return np.full((len(labels), 1), float(train_labels.mean()))
    if labels.ndim == 1:
        classes = classes or int(max(labels.max(), train_labels.max())) + 1
        chosen = np.bincount(train_labels, minlength=classes).argmax()
        return np.tile(np.eye(classes)[chosen], (len(labels), 1))
    return np.tile(np.where(train_labels.mean(axis=0) > 0.5, 1.0, -1.0), (len(labels), 1))
