"""Proving what was kept: paired statistics of a baseline and a compressed model on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, chi2

from plankwise.core.records import Interval
from plankwise.evaluation.metrics import METRICS, Array, Floats, Metric, count, decide, decide_flags, probabilities

LEVEL = (2.5, 97.5)


@dataclass(frozen=True)
class Pair:
    """Logits [examples, classes] of both models on the same examples, of one seed."""

    labels: Array
    baseline: Floats
    compressed: Floats


def retained_performance(pairs: Sequence[Pair], metric: str, resamples: int, seed: int = 0) -> Interval | None:
    """Compute R = score of the compressed model / score of the baseline, with a paired bootstrap interval.

    With several seeds of training the bootstrap is hierarchical: seeds are drawn first, then examples, the same
    examples for every seed and for both models; scores are averaged over seeds before they are divided. `None` where
    the baseline scores 0.
    """
    old = resampled_scores([(pair.labels, pair.baseline) for pair in pairs], metric, resamples, seed)
    new = resampled_scores([(pair.labels, pair.compressed) for pair in pairs], metric, resamples, seed)
    baseline = _mean_score(pairs, metric, compressed=False)
    if baseline == 0:
        return None
    ratios = np.divide(new, old, out=np.full_like(new, np.nan), where=old > 0)
    return _interval(_mean_score(pairs, metric, compressed=True) / baseline, ratios)


def score_interval(
    labels: Sequence[Array], logits: Sequence[Floats], metric: str, resamples: int, seed: int = 0
) -> Interval:
    """Compute a score, averaged over the seeds given, with its bootstrap interval."""
    both = list(zip(labels, logits, strict=True))
    value = float(np.mean([METRICS[metric](*each) for each in both]))
    return _interval(value, resampled_scores(both, metric, resamples, seed))


def resampled_scores(runs: Sequence[tuple[Array, Floats]], metric: str, resamples: int, seed: int) -> Floats:
    """Score bootstrap resamples, [resamples]; the same seed gives the same examples, which is what pairs two calls.

    Args:
        runs: labels and logits of each training seed, all on the same examples.
        metric: name of the score.
        resamples: how many.
        seed: of the resampling.
    """
    generator = np.random.default_rng(seed)
    size = len(runs[0][0])
    seeds = generator.integers(0, len(runs), size=(resamples, len(runs)))
    weights = generator.multinomial(size, np.full(size, 1 / size), size=resamples)
    per_run = np.stack([_weighted_scores(METRICS[metric], *run, weights) for run in runs], axis=1)
    scores: Floats = np.take_along_axis(per_run, seeds, axis=1).mean(axis=1)
    return scores


def _weighted_scores(metric: Metric, labels: Array, logits: Floats, weights: NDArray[np.int64]) -> Floats:
    if metric.reduce is not None:
        return metric.reduce(weights.astype(np.float64) @ count(labels, logits))
    assert metric.direct is not None
    everyone = np.arange(len(labels))
    drawn = (np.repeat(everyone, row) for row in weights)
    return np.array([metric.direct(labels[rows], logits[rows]) for rows in drawn])


def _mean_score(pairs: Sequence[Pair], metric: str, compressed: bool) -> float:
    scores = [METRICS[metric](pair.labels, pair.compressed if compressed else pair.baseline) for pair in pairs]
    return float(np.mean(scores))


def _interval(value: float, resampled: Floats) -> Interval:
    low, high = np.nanpercentile(resampled, LEVEL)
    return Interval(value=value, low=float(low), high=float(high))


def chance_corrected(new: float, old: float, chance: float) -> float | None:
    """Compute (s − c) / (t − c): what is kept of what the baseline had above always guessing the majority.

    `None` where the baseline is no better than the guess.
    """
    return (new - chance) / (old - chance) if old > chance else None


def behaviour(pair: Pair) -> dict[str, float]:
    """Compare what both models do, example by example.

    Returns:
        label_loyalty: share of equal decisions.
        probability_loyalty: mean of 1 − √JSD, base 2 (Xu et al. 2021, arXiv 2109.03228).
        negative_flip_rate, positive_flip_rate: right became wrong, wrong became right; shares of all examples.
        mcnemar_p: that both are wrong equally often; exact binomial below 25 discordant pairs.
    """
    multi = pair.labels.ndim == 2
    choose = decide_flags if multi else decide
    old, new = choose(pair.baseline), choose(pair.compressed)
    equal, old_right, new_right = old == new, old == pair.labels, new == pair.labels
    if multi:
        equal, old_right, new_right = (each.all(axis=1) for each in (equal, old_right, new_right))
    lost, won = int((old_right & ~new_right).sum()), int((~old_right & new_right).sum())
    return {
        "label_loyalty": float(equal.mean()),
        "probability_loyalty": _probability_loyalty(pair, multi),
        "negative_flip_rate": lost / len(equal),
        "positive_flip_rate": won / len(equal),
        "mcnemar_p": mcnemar(lost, won),
    }


def mcnemar(lost: int, won: int) -> float:
    """Test whether `lost` and `won` discordant pairs differ: (b − c)² / (b + c), exact below 25 pairs; a p-value."""
    if lost + won == 0:
        return 1.0
    if lost + won < 25:
        return float(binomtest(lost, lost + won, 0.5).pvalue)
    return float(chi2.sf((lost - won) ** 2 / (lost + won), df=1))


def _probability_loyalty(pair: Pair, multi: bool) -> float:
    old, new = probabilities(pair.baseline, multi), probabilities(pair.compressed, multi)
    if multi:  # each label is a distribution of its own over yes and no
        old, new = np.stack([old, 1 - old], axis=-1), np.stack([new, 1 - new], axis=-1)
    distance = np.nan_to_num(jensenshannon(old, new, base=2, axis=-1))  # SciPy returns the root already
    return float(1 - distance.mean())
