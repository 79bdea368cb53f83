"""What was kept: paired statistics of a baseline and a compressed model on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, chi2

from plankwise.core.records import Interval
from plankwise.evaluation.intervals import interval_of, resampled_scores
from plankwise.evaluation.metrics import METRICS, Array, Floats, decide, decide_flags, probabilities
from plankwise.evaluation.score_metrics import are_scores


@dataclass(frozen=True)
class Pair:
    """Logits [examples, classes] of both models on the same examples, of one seed; of scores [examples, 1]."""

    labels: Array
    baseline: Floats
    compressed: Floats


def retained_performance(
    pairs: Sequence[Pair], metric: str, resamples: int, seed: int = 0, *, chance: float = 0.0
) -> Interval | None:
    """Compute R = score of the compressed model / score of the baseline, with a paired bootstrap interval.

    With several training seeds the bootstrap is hierarchical: seeds are drawn first, then examples, the same examples
    for every seed and for both models. Scores are averaged over seeds before they are divided.

    Args:
        pairs: of each training seed.
        metric: name of the score.
        resamples: of the bootstrap.
        seed: of the resampling.
        chance: score to subtract from both, such as that of always guessing the majority; R is then what is retained of
            the lead over it.

    Returns:
        None if the baseline scores no more than `chance`.
    """
    old = resampled_scores([(pair.labels, pair.baseline) for pair in pairs], metric, resamples, seed)
    new = resampled_scores([(pair.labels, pair.compressed) for pair in pairs], metric, resamples, seed)
    baseline = _mean_score(pairs, metric, compressed=False)
    if baseline <= chance:
        return None
    ratios = np.divide(new - chance, old - chance, out=np.full_like(new, np.nan), where=old > chance)
    return interval_of((_mean_score(pairs, metric, compressed=True) - chance) / (baseline - chance), ratios)


def _mean_score(pairs: Sequence[Pair], metric: str, compressed: bool) -> float:
    scores = [METRICS[metric](pair.labels, pair.compressed if compressed else pair.baseline) for pair in pairs]
    return float(np.mean(scores))


def chance_corrected(new: float, old: float, chance: float) -> float | None:
    """Compute (s − c) / (t − c): the share of the baseline's lead over the majority guess that is kept.

    Args:
        new: score of the compressed model, s.
        old: score of the baseline, t.
        chance: score of always guessing the majority, c.

    Returns:
        None if the baseline is no better than the guess.
    """
    return (new - chance) / (old - chance) if old > chance else None


def behaviour(pair: Pair) -> dict[str, float]:
    """Compare the answers of both models, example by example.

    Returns:
        Of scores what `score_behaviour` returns, and of decisions:
        label_loyalty: share of equal decisions.
        probability_loyalty: mean of 1 − √JSD, base 2 (Xu et al. 2021, arXiv 2109.03228).
        negative_flip_rate: share of all examples that were right and became wrong.
        positive_flip_rate: share of all examples that were wrong and became right.
        mcnemar_p: p-value of both models being wrong equally often.
    """
    if are_scores(pair.labels):
        return score_behaviour(pair)
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


def score_behaviour(pair: Pair) -> dict[str, float]:
    """Compare the scores of both models, example by example.

    Returns:
        rank_correlation: Spearman's, of the scores of both.
        correlation: Pearson's.
        mean_change: mean absolute change of a score, in standard deviations of the baseline's.
        largest_change: the largest, in the same unit.
    """
    old, new = pair.baseline[:, 0], pair.compressed
    changes = np.abs(new[:, 0] - old) / max(float(old.std()), np.finfo(np.float64).tiny)
    return {
        "rank_correlation": METRICS["spearman"](old, new),
        "correlation": METRICS["pearson"](old, new),
        "mean_change": float(changes.mean()),
        "largest_change": float(changes.max()),
    }


def agreement(pair: Pair) -> float:
    """Return how alike two models answer: the share of equal decisions, or the rank correlation of scores."""
    found = behaviour(pair)
    return found["rank_correlation" if are_scores(pair.labels) else "label_loyalty"]


def mcnemar(lost: int, won: int) -> float:
    """Test whether the numbers of discordant pairs differ (McNemar 1947).

    Args:
        lost: examples that only the baseline has right, b.
        won: examples that only the compressed model has right, c.

    Returns:
        The p-value of χ² = (b − c)² / (b + c); below 25 pairs that of the exact binomial test.
    """
    if lost + won == 0:
        return 1.0
    if lost + won < 25:
        return float(binomtest(lost, lost + won, 0.5).pvalue)
    return float(chi2.sf((lost - won) ** 2 / (lost + won), df=1))


def _probability_loyalty(pair: Pair, multi: bool) -> float:
    old, new = probabilities(pair.baseline, multi), probabilities(pair.compressed, multi)
    if multi:  # each label is a distribution of its own over yes and no
        old, new = np.stack([old, 1 - old], axis=-1), np.stack([new, 1 - new], axis=-1)
    with np.errstate(invalid="ignore"):  # of nearly equal distributions SciPy may take the root of -1e-17
        distance = np.nan_to_num(jensenshannon(old, new, base=2, axis=-1))  # the root is taken already
    return float(1 - distance.mean())
