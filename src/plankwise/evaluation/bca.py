"""BCa: bootstrap intervals that correct the percentiles for bias and skewness.

Efron 1987, "Better Bootstrap Confidence Intervals", doi:10.2307/2289144. Percentile intervals are too narrow where few
things are drawn, as seeds often are. The acceleration comes from a jackknife over examples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from plankwise.core.records import Interval
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.metrics import Array, Floats, Metric, count

ENDS = np.array([0.025, 0.975])


def bca_interval(pairs: Sequence[Pair], metric: Metric, resampled: Floats) -> Interval | None:
    """Compute the interval of a difference in score, compressed − baseline, averaged over training seeds.

    Args:
        pairs: of each training seed.
        metric: the score.
        resampled: that difference on bootstrap resamples, [resamples].

    Returns:
        None for a metric of ranks, of which leaving each example out would cost a sort each, and where all resamples
        are on one side of the value.
    """
    if metric.reduce is None:
        return None
    known = resampled[~np.isnan(resampled)]
    value = float(np.mean([metric(p.labels, p.compressed) - metric(p.labels, p.baseline) for p in pairs]))
    below = float(((known < value).sum() + (known <= value).sum()) / (2 * len(known)))
    if not 0 < below < 1:
        return None
    bias, acceleration = norm.ppf(below), _acceleration(_jackknife(pairs, metric))
    quantiles = bias + norm.ppf(ENDS)
    low, high = np.quantile(known, norm.cdf(bias + quantiles / (1 - acceleration * quantiles)))
    return Interval(value=value, low=float(low), high=float(high))


def _jackknife(pairs: Sequence[Pair], metric: Metric) -> Floats:
    """Compute the difference without each of the examples, [examples]."""
    found: Floats = np.mean(
        [_without_each(p.labels, p.compressed, metric) - _without_each(p.labels, p.baseline, metric) for p in pairs],
        axis=0,
    )
    return found


def _without_each(labels: Array, logits: Floats, metric: Metric) -> Floats:
    assert metric.reduce is not None
    counts = count(labels, logits)
    return metric.reduce(counts.sum(axis=0) - counts)


def _acceleration(left_out: Floats) -> float:
    away = left_out.mean() - left_out
    spread = (away**2).sum() ** 1.5
    return float((away**3).sum() / (6 * spread)) if spread > 0 else 0.0
