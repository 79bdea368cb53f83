"""Is the compressed model as good as the baseline, give or take a margin? A verdict that may be "cannot tell".

Piaggio et al. 2012 (CONSORT for non-inferiority trials): the margin is chosen beforehand, and the 95 % interval of the
difference is compared with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from scipy.stats import norm

from plankwise.core.records import Interval
from plankwise.evaluation.metrics import Floats

Verdict = Literal["non-inferior", "inferior", "cannot tell"]
POWER = 0.8
_Z = float(norm.ppf(0.975))


def verdict_of(difference: Interval, margin: float) -> Verdict:
    """Judge a difference, compressed − baseline, against the largest loss that is acceptable.

    Args:
        difference: with its 95 % interval.
        margin: above 0, in units of the score.
    """
    if difference.low >= -margin:
        return "non-inferior"
    return "inferior" if difference.high < -margin else "cannot tell"


def more_examples(difference: Interval, margin: float, examples: int) -> int | None:
    """Estimate how many more examples would show that the loss stays within the margin, with 80 % power.

    The interval narrows with the square root of the number of examples, and the difference stays what it is. 0 where
    the interval shows it already; None where the difference itself is beyond the margin, so that no number will.
    """
    if verdict_of(difference, margin) == "non-inferior":
        return 0
    room = difference.value + margin
    if room <= 0:
        return None
    error = (difference.high - difference.low) / (2 * _Z)
    needed = examples * ((_Z + float(norm.ppf(POWER))) * error / room) ** 2
    return max(1, math.ceil(needed) - examples)


def p_value(resampled: Floats, margin: float) -> float:
    """Compute the share of resamples in which the loss exceeds the margin: the bootstrap's one-sided p-value.

    Args:
        resampled: differences, compressed − baseline, [resamples]; what is not a number is left out.
        margin: above 0.
    """
    known = resampled[~np.isnan(resampled)]
    return (1 + int((known < -margin).sum())) / (1 + len(known))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for their number (Holm 1979), so that any false one among all has the probability it says."""
    order = sorted(p_values, key=p_values.__getitem__)
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def judged(difference: Interval, margin: float, examples: int) -> dict[str, Any]:
    """Return a difference with its verdict and, where it cannot be told, about how many more examples it takes."""
    verdict = verdict_of(difference, margin)
    more = more_examples(difference, margin, examples) if verdict == "cannot tell" else None
    return {"difference": difference.model_dump(), "margin": margin, "verdict": verdict, "more_examples": more}
