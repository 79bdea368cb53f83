"""Bootstrap intervals: 95 %, by percentiles, of scores and of anything else that is computed on resamples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plankwise.core.records import Interval
from plankwise.evaluation.metrics import METRICS, Array, Floats, Metric, count

LEVEL = (2.5, 97.5)
AT_ONCE = 200  # resamples of a rank metric, which takes several numbers for each of their examples
Runs = Sequence[tuple[Array, Floats]]  # labels and logits of each training seed, all on the same examples


def percentile_interval(resampled: Floats) -> tuple[float, float]:
    """Return the ends of the interval of a statistic; resamples on which it is not defined (NaN) are left out.

    Args:
        resampled: the statistic on each resample, [resamples].
    """
    low, high = np.nanpercentile(resampled, LEVEL)
    return float(low), float(high)


def interval_of(value: float, resampled: Floats) -> Interval:
    """Join a statistic of all examples with its interval."""
    low, high = percentile_interval(resampled)
    return Interval(value=value, low=low, high=high)


def draw_counts(generator: np.random.Generator, size: int, resamples: int) -> NDArray[np.int64]:
    """Draw `size` of `size` things with replacement; return how often each was drawn, [resamples, size]."""
    return generator.multinomial(size, np.full(size, 1 / size), size=resamples)


def score_interval(
    labels: Sequence[Array], logits: Sequence[Floats], metric: str, resamples: int, seed: int = 0
) -> Interval:
    """Compute a score, averaged over training seeds, with its bootstrap interval.

    Args:
        labels: of each training seed, [examples] or [examples, classes].
        logits: of each training seed, [examples, classes].
        metric: name of the score.
        resamples: of the bootstrap.
        seed: of the resampling.
    """
    runs = list(zip(labels, logits, strict=True))
    value = float(np.mean([METRICS[metric](*run) for run in runs]))
    return interval_of(value, resampled_scores(runs, metric, resamples, seed))


def resampled_scores(runs: Runs, metric: str | Metric, resamples: int, seed: int) -> Floats:
    """Score bootstrap resamples, [resamples]: training seeds are drawn first, then examples, the same for every seed.

    Args:
        runs: of each training seed.
        metric: name of the score, or the score itself.
        resamples: how many.
        seed: of the resampling. The same one draws the same examples, which pairs two calls.
    """
    generator = np.random.default_rng(seed)
    seeds = generator.integers(0, len(runs), size=(resamples, len(runs)))
    weights = draw_counts(generator, len(runs[0][0]), resamples)
    of = METRICS[metric] if isinstance(metric, str) else metric
    per_run = np.stack([_weighted_scores(of, *run, weights) for run in runs], axis=1)
    scores: Floats = np.take_along_axis(per_run, seeds, axis=1).mean(axis=1)
    return scores


def _weighted_scores(metric: Metric, labels: Array, logits: Floats, weights: NDArray[np.int64]) -> Floats:
    """Score resamples, [resamples], given how often each draws each example, [resamples, examples]."""
    if metric.reduce is not None:
        return metric.reduce(weights.astype(np.float64) @ count(labels, logits))
    if metric.weighted is not None:
        parts = np.array_split(weights, -(-len(weights) // AT_ONCE))
        return np.concatenate([metric.weighted(labels, logits, part) for part in parts])
    assert metric.direct is not None
    everyone = np.arange(len(labels))
    drawn = (np.repeat(everyone, row) for row in weights)
    return np.array([metric.direct(labels[rows], logits[rows]) for rows in drawn])
