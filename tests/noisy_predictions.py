"""Made-up predictions of a known quality, for tests of statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from plankwise.core.records import Interval
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.metrics import Array, Floats

Make = Callable[..., Pair]


def noisy(labels: Array, accuracy: float, seed: int, classes: int = 2) -> Floats:
    """Logits that are right with the given probability."""
    draw = np.random.default_rng(seed)
    wrong = (labels + draw.integers(1, classes, len(labels))) % classes
    chosen = np.where(draw.random(len(labels)) < accuracy, labels, wrong)
    return np.eye(classes)[chosen] + 0.1 * draw.random((len(labels), classes))


def pair(size: int = 300, old: float = 0.85, new: float = 0.8, classes: int = 3, seed: int = 0) -> Pair:
    labels = np.random.default_rng(seed).integers(0, classes, size)
    return Pair(labels, noisy(labels, old, seed + 1, classes), noisy(labels, new, seed + 2, classes))


def multi_pair(size: int = 300, seed: int = 0) -> Pair:
    draw = np.random.default_rng(seed)
    labels = (draw.random((size, 3)) < 0.4).astype(np.float32)
    old, new = (3 * labels - 1.5 + draw.normal(size=(size, 3)) for _ in range(2))
    return Pair(labels, old, new)


def score_pair(size: int = 300, seed: int = 0) -> Pair:
    """Scores of which some are equal, and two models that come near."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 11, size) / 2
    old, new = (labels[:, None] + draw.normal(size=(size, 1)) for _ in range(2))
    return Pair(labels, old, new.round(1))


def width(interval: Interval) -> float:
    return interval.high - interval.low
