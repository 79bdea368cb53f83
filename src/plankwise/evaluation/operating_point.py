"""Operating points: what becomes of a threshold that was chosen for the baseline once the compressed model uses it.

A team that flags comments above a threshold which gave 90 % precision will not choose it again for each new model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plankwise.evaluation.metrics import Array, Floats, probabilities


@dataclass(frozen=True)
class OperatingPoint:
    """Precision and recall at a threshold of the probability; precision is None where nothing reaches it."""

    precision: float | None
    recall: float
    flagged: float


def class_scores(labels: Array, logits: Floats, index: int) -> tuple[Array, Floats]:
    """Return whether each example has a class, and the probability that a model gives it, [examples] both."""
    several = labels.ndim == 2
    return (labels[:, index] == 1) if several else labels == index, probabilities(logits, several)[:, index]


def threshold_for(flags: Array, scores: Floats, precision: float) -> float | None:
    """Return the lowest threshold from which on at least this share of what is flagged is right; None if there is none.

    Args:
        flags: whether each example has the class.
        scores: its probability; an example is flagged if it is not below the threshold.
        precision: wanted.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    right = np.cumsum(flags[order]) / np.arange(1, len(order) + 1)
    last = np.append(ranked[1:] < ranked[:-1], True)  # examples of one score are flagged together
    enough = np.flatnonzero(last & (right >= precision))
    return float(ranked[enough[-1]]) if len(enough) else None


def at_threshold(flags: Array, scores: Floats, threshold: float) -> OperatingPoint:
    """Compute precision, recall and the share of examples that is flagged at a threshold."""
    flagged = scores >= threshold
    hits = int((flagged & (flags == 1)).sum())
    count = int(flagged.sum())
    return OperatingPoint(
        precision=hits / count if count else None,
        recall=hits / max(1, int((flags == 1).sum())),
        flagged=count / len(flags),
    )
