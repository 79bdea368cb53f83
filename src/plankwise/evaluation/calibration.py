"""Calibration: whether a model is right as often as its confidence says, before and after temperature scaling.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599. The confidence of an answer is the
probability of the class that is chosen; in a multi-label task each label is an answer of its own, yes or no.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from plankwise.evaluation.metrics import Array, Floats, log_loss, probabilities

Answers = tuple[Array, Floats]  # labels and logits
BINS = 15  # of equal width
LOG_TEMPERATURES = (-3.0, 3.0)  # bounds of the search, natural logarithms
FOLDS = 2


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence.

    Attributes:
        confidence: their mean.
        accuracy: share of them that is right.
        answers: how many.
    """

    confidence: float
    accuracy: float
    answers: int


def confidences(labels: Array, logits: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the confidence of each answer and whether it is right, [answers] both.

    Args:
        labels: [examples], or [examples, classes] of 0 and 1, whose answers are flattened.
        logits: [examples, classes].
    """
    several = labels.ndim == 2
    shares = probabilities(logits, several)
    if several:
        chosen = shares > 0.5
        return np.where(chosen, shares, 1 - shares).ravel(), (chosen == (labels == 1)).ravel()
    return shares.max(axis=-1), shares.argmax(axis=-1) == labels


def reliability(labels: Array, logits: Floats, bins: int = BINS) -> list[Bin]:
    """Group answers by confidence into bins of equal width over [0, 1]; empty bins are left out."""
    confidence, right = confidences(labels, logits)
    numbers = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        Bin(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for number in range(bins)
        if (inside := numbers == number).any()
    ]


def calibration_error(labels: Array, logits: Floats, bins: int = BINS) -> float:
    """Compute ECE, the mean distance of accuracy from confidence over bins, weighted by answers; down is better."""
    found = reliability(labels, logits, bins)
    answers = sum(each.answers for each in found)
    return sum(each.answers * abs(each.accuracy - each.confidence) for each in found) / answers


def fit_temperature(labels: Array, logits: Floats) -> float:
    """Return the temperature by which logits are divided for the smallest cross-entropy."""

    def loss(log_temperature: float) -> float:
        return log_loss(labels, logits / np.exp(log_temperature))

    return float(np.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded").x))


def scaled_logits(labels: Array, logits: Floats, development: Answers | None) -> tuple[Floats, float]:
    """Divide logits by a temperature that other examples give.

    Args:
        labels: of the examples to scale.
        logits: of these.
        development: labels and logits of other examples; without them the two halves of the examples (every other one)
            give each other's temperature.

    Returns:
        Scaled logits, and the temperature, the geometric mean of two.
    """
    if development is not None:
        temperature = fit_temperature(*development)
        return logits / temperature, temperature
    fold = np.arange(len(logits)) % FOLDS
    temperatures = np.array([fit_temperature(labels[fold != each], logits[fold != each]) for each in range(FOLDS)])
    return logits / temperatures[fold][:, None], float(np.exp(np.log(temperatures).mean()))


def describe_calibration(runs: Sequence[Answers], development: Sequence[Answers] | None = None) -> dict[str, Any]:
    """Describe how far a model's probabilities can be believed, of one training seed or several.

    Args:
        runs: labels and logits of each seed's model.
        development: the same of each on other examples, to fit temperatures on.

    Returns:
        `ece` before and after scaling (`ece_scaled`), means over seeds; their `temperature`, a geometric mean; and the
        `reliability` curve before, over the answers of all seeds.
    """
    others: Sequence[Answers | None] = [None] * len(runs) if development is None else development
    scaled = [scaled_logits(*run, other) for run, other in zip(runs, others, strict=True)]
    errors = [
        (calibration_error(*run), calibration_error(run[0], new)) for run, (new, _) in zip(runs, scaled, strict=True)
    ]
    before, after = (float(np.mean(each)) for each in zip(*errors, strict=True))
    labels, logits = (np.concatenate(each) for each in zip(*runs, strict=True))
    return {
        "ece": before,
        "ece_scaled": after,
        "temperature": float(np.exp(np.mean([np.log(temperature) for _, temperature in scaled]))),
        "fitted_on": "development" if development is not None else "the other half",
        "reliability": [asdict(each) for each in reliability(labels, logits)],
    }
