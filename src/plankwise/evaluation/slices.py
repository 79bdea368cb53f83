"""Slices: parts of the examples, such as long texts or one source, in which a model lost more than in the whole.

What is compared is the share of examples that are answered right, as every part has that, whatever classes it holds. Of
scores it is the share of their variance that is explained: 1 less the squared error in units of the variance of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plankwise.core.records import Interval
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.intervals import draw_counts, interval_of
from plankwise.evaluation.metrics import Array, Floats, decide, decide_flags
from plankwise.evaluation.score_metrics import are_scores

Slices = Mapping[str, Mapping[str, NDArray[np.bool_]]]  # by what they are cut by, then by value: [examples]
CLASS, SCORE = "class", "true score"  # what slices are cut by
MIN_ROWS = 20  # of a slice: in fewer nothing can be told
MAX_VALUES = 20  # of a column: the most frequent ones
QUARTERS = (25, 50, 75)


def quartiles(values: Sequence[float] | NDArray[Any], unit: str) -> dict[str, NDArray[np.bool_]]:
    """Cut examples into four parts of about equal count by a number, such as the length of their text.

    Args:
        values: of each example.
        unit: for the names of the parts; may be empty.
    """
    known = np.asarray(values, dtype=np.float64)
    edges = np.unique([known.min(), *np.percentile(known, QUARTERS), known.max()])
    if len(edges) < 2:
        return {}
    parts = np.clip(np.searchsorted(edges[1:-1], known, side="left"), 0, len(edges) - 2)
    return {
        f"{edges[at]:.3g} to {edges[at + 1]:.3g} {unit}".strip(): parts == at
        for at in range(len(edges) - 1)
        if (parts == at).any()
    }


def values_of(column: Sequence[Any]) -> dict[str, NDArray[np.bool_]]:
    """Cut examples by a column, for its most frequent values."""
    texts = np.array(["" if value is None else str(value) for value in column])
    names, counts = np.unique(texts, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MAX_VALUES]
    return {str(name) or "(empty)": texts == name for name in names[order]}


def classes_of(labels: Array, names: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Cut examples by their true class, or by each label that they have."""
    flags = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(len(names))
    return {name: flags[:, index] for index, name in enumerate(names)}


def unknown_words(texts: Sequence[str], train_texts: Sequence[str]) -> Floats:
    """Compute, for each text, the share of its words that no text of train has."""
    known = {word for text in train_texts for word in text.casefold().split()}
    shares = []
    for text in texts:
        words = text.casefold().split()
        shares.append(sum(word not in known for word in words) / max(1, len(words)))
    return np.array(shares)


def goodness(labels: Array, logits: Floats) -> Floats:
    """Return how well each example is answered, [examples]: 0 or 1, and of scores 1 − (y − p)² / var(y)."""
    if are_scores(labels):
        found: Floats = 1 - (labels - logits[:, 0]) ** 2 / max(float(labels.var()), np.finfo(np.float64).tiny)
        return found
    return is_right(labels, logits).astype(np.float64)


def is_right(labels: Array, logits: Floats) -> NDArray[np.bool_]:
    """Return whether each example is answered right, in a multi-label task in all of its labels."""
    if labels.ndim == 2:
        return np.asarray((decide_flags(logits) == labels).all(axis=1))
    return np.asarray(decide(logits) == labels)


def compare_slices(pairs: Sequence[Pair], slices: Slices, resamples: int, seed: int = 0) -> list[dict[str, Any]]:
    """Compare the accuracy, or r2, of both models in each slice, and flag those that lost more than the whole.

    A slice is flagged if the 95 % interval of its change less that of the whole is below 0. Training seeds are drawn
    first, then examples, the same for every slice.

    Args:
        pairs: of each training seed, on the same examples.
        slices: to compare; those of fewer than 20 examples are left out.
        resamples: of the bootstrap.
        seed: of the resampling.
    """
    good = [(goodness(each.labels, each.baseline), goodness(each.labels, each.compressed)) for each in pairs]
    old = np.stack([one for one, _ in good])
    change = np.stack([other for _, other in good]) - old  # [seeds, examples]
    generator = np.random.default_rng(seed)
    drawn_seeds = generator.integers(0, len(pairs), size=(resamples, len(pairs)))
    weights = draw_counts(generator, old.shape[1], resamples).astype(np.float64)
    whole = _resampled_mean(change, np.ones(old.shape[1]), weights, drawn_seeds)
    found = []
    for kind, parts in slices.items():
        for name, inside in parts.items():
            if inside.sum() < MIN_ROWS:
                continue
            part = _resampled_mean(change, inside.astype(np.float64), weights, drawn_seeds)
            value = float(change[:, inside].mean())
            beyond = interval_of(value - float(change.mean()), part - whole)
            found.append(
                {
                    "by": kind,
                    "slice": name,
                    "measure": "r2" if are_scores(pairs[0].labels) else "accuracy",
                    "rows": int(inside.sum()),
                    "baseline": float(old[:, inside].mean()),
                    "difference": interval_of(value, part).model_dump(),
                    "beyond_whole": beyond.model_dump(),
                    "flagged": is_flagged(beyond),
                }
            )
    return found


def is_flagged(beyond: Interval) -> bool:
    """Return whether a slice lost more than the whole, by its interval."""
    return beyond.high < 0


def _resampled_mean(change: Floats, inside: Floats, weights: Floats, drawn_seeds: NDArray[np.int64]) -> Floats:
    """Compute the mean change within a slice on each resample, [resamples]; NaN where none of it was drawn."""
    count = weights @ inside
    sums = weights @ (change * inside).T  # [resamples, seeds]
    per_seed = np.divide(sums, count[:, None], out=np.full_like(sums, np.nan), where=count[:, None] > 0)
    mean: Floats = np.take_along_axis(per_seed, drawn_seeds, axis=1).mean(axis=1)
    return mean
