"""What each hyperparameter does to the score: effects, contrasts and spreads with intervals, from the table of trials.

All of them come from one model, fitted by least squares: score = block + level. A block holds the trials that agree in
every other parameter and in the seed, so that levels are compared within blocks only; a block that lacks some levels
biases nothing. If the design is not crossed enough for that, as with samplers, all trials are one block, and levels are
compared by their means.

Intervals are 95 % and come from a bootstrap over both random factors: the seeds, and the combinations of the other
parameters (whole settings, if there are no blocks). Both are drawn with replacement, independently of each other, and
the weight of a trial is the draws of its seed times the draws of its combination: the pigeonhole bootstrap for crossed
random factors (Owen 2007, arXiv 0712.1111), which errs on the wide side if the noise of single trials dominates. With
few seeds no bootstrap knows how much seeds differ; with one there is no interval.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plankwise.core.intervals import MISSING, format_interval
from plankwise.evaluation.intervals import draw_counts, percentile_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
RESAMPLES = 2000
LEVELS, BINS = 8, 4  # a numeric parameter with more values than LEVELS is cut into BINS of equal count


@dataclass(frozen=True)
class TrialTable:
    """The finished trials: columns of the parameters, `seed`, `score` and anything else that trials record."""

    keys: tuple[str, ...]
    rows: Any  # pandas.DataFrame


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval (none with a single seed), and what it rests on.

    Attributes:
        value: in units of the score.
        low, high: ends of the interval.
        trials: how many were compared.
        seeds: how many different seeds these trials have.
        paired: whether levels were compared within blocks.
    """

    value: float
    low: float | None
    high: float | None
    trials: int
    seeds: int
    paired: bool


def shown_estimate(estimate: dict[str, Any] | None) -> str:
    """Write an estimate, as a document holds it, with its interval."""
    if estimate is None:
        return MISSING
    return format_interval(estimate["value"], estimate["low"], estimate["high"], digits=4, signed=True)


@dataclass(frozen=True)
class Level:
    """One value, or bin of values, of a parameter: mean score of its trials, and effect against all levels' mean."""

    value: str
    mean: float
    effect: Estimate


def table_of(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> TrialTable:
    """Make a table of the trials that have a score, with each setting and seed once."""
    done = [{key: _hashable(value) for key, value in row.items()} for row in rows if row["score"] is not None]
    frame = pd.DataFrame(done, columns=list(rows[0]) if rows else [*keys, "seed", "score"])
    return TrialTable(tuple(keys), frame.drop_duplicates([*keys, "seed"]).reset_index(drop=True))


def _hashable(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def levels_of(table: TrialTable, key: str) -> tuple[list[str], Ints]:
    """Return a parameter's levels in order, and the index of each trial's level; many numbers are cut into bins."""
    values = table.rows[key].tolist()
    distinct = list(dict.fromkeys(values))
    numeric = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in distinct)
    if not numeric:
        return [str(each) for each in distinct], np.array([distinct.index(each) for each in values], dtype=np.int64)
    if len(distinct) <= LEVELS:
        distinct = sorted(distinct)
        return [f"{each:g}" for each in distinct], np.array([distinct.index(each) for each in values], dtype=np.int64)
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1))
    names = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)]
    return names, np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BINS - 1).astype(np.int64)


def main_effects(table: TrialTable, key: str, resamples: int = RESAMPLES) -> list[Level]:
    """Compute each level's mean score and its effect: how much better than the mean of all levels, all else equal."""
    names, levels = levels_of(table, key)
    scores = table.rows["score"].to_numpy(dtype=np.float64)
    design = _design(table, levels, len(names), {key})
    fit = _Fit(design, scores, resamples)
    return [
        Level(name, float(scores[levels == index].mean()), fit.estimate(_column(index), levels == index))
        for index, name in enumerate(names)
    ]


def _column(index: int) -> Callable[[Floats], Floats]:
    return lambda effects: effects[:, index]


def contrast(
    table: TrialTable, one: NDArray[np.bool_], other: NDArray[np.bool_], free: set[str], resamples: int = RESAMPLES
) -> Estimate | None:
    """Compare two groups of trials: mean score of `one` − that of `other`, all but the `free` parameters equal.

    `None` if a group is empty.
    """
    if not one.any() or not other.any():
        return None
    part = TrialTable(table.keys, table.rows[one | other].reset_index(drop=True))
    levels = np.where(one[one | other], 0, 1).astype(np.int64)
    fit = _Fit(_design(part, levels, 2, free), part.rows["score"].to_numpy(dtype=np.float64), resamples)
    return fit.estimate(lambda effects: effects[:, 0] - effects[:, 1])


def spreads(table: TrialTable, keys: Sequence[str], resamples: int = RESAMPLES) -> tuple[dict[str, float], Floats]:
    """Estimate the share of each parameter in the variance of the scores: that between its levels, without the noise.

    Noise alone makes fitted effects differ, the more the more levels there are. That part is estimated from the
    residuals and subtracted, so that parameters with different numbers of levels can be compared. A component may be
    negative. A parameter with one level has none.

    Returns:
        Component by key, in squared units of the score, and the same for each resample, [resamples, keys].
    """
    components, resampled = {}, []
    for key in keys:
        names, levels = levels_of(table, key)
        if len(names) < 2:
            continue
        design = _design(table, levels, len(names), {key})
        fit = _Fit(design, table.rows["score"].to_numpy(dtype=np.float64), resamples)
        components[key] = float(fit.component)
        resampled.append(fit.resampled_components)
    return components, np.stack(resampled, axis=1) if resampled else np.zeros((resamples, 0))


@dataclass(frozen=True)
class _Design:
    """Each trial's level, block, seed and combination of the other parameters, as indices."""

    levels: Ints
    blocks: Ints
    seeds: Ints
    contexts: Ints
    level_count: int
    paired: bool


def _design(table: TrialTable, levels: Ints, level_count: int, free: set[str]) -> _Design:
    others = [key for key in table.keys if key not in free]
    seeds, contexts = codes_of(table, ["seed"]), codes_of(table, others)
    blocks = codes_of(table, [*others, "seed"])
    if _is_crossed(levels, blocks, level_count):
        return _Design(levels, blocks, seeds, contexts, level_count, True)
    return _Design(levels, np.zeros_like(blocks), seeds, codes_of(table, list(table.keys)), level_count, False)


def codes_of(table: TrialTable, columns: list[str]) -> Ints:
    """Number the different values of some columns together, [trials]."""
    if not columns:
        return np.zeros(len(table.rows), dtype=np.int64)
    codes: Ints = table.rows.groupby(columns, dropna=False, sort=False).ngroup().to_numpy(dtype=np.int64)
    return codes


def _is_crossed(levels: Ints, blocks: Ints, level_count: int) -> bool:
    """Return whether blocks link all levels to each other, and at least half of the trials are in such blocks."""
    seen = np.zeros((blocks.max() + 1, level_count))
    seen[blocks, levels] = 1
    telling = seen.sum(axis=1) > 1  # blocks of one level compare nothing
    reach = seen[telling].T @ seen[telling] > 0  # [levels, levels]: which levels meet in some block
    linked = np.linalg.matrix_power((reach | np.eye(level_count, dtype=bool)).astype(float), level_count) > 0
    return bool(linked.all() and telling[blocks].mean() >= 0.5)


class _Fit:
    """Least squares of score = block + level, on the trials and on all resamples at once."""

    def __init__(self, design: _Design, scores: Floats, resamples: int) -> None:
        self._design = design
        ones = np.ones((1, len(scores)))
        effects, component = _solve(design, scores, ones)
        self._effects, self.component = effects, component[0]
        self._resampled, self.resampled_components = _solve(design, scores, _weights(design, resamples))

    def estimate(self, of: Callable[[Floats], Floats], where: NDArray[np.bool_] | None = None) -> Estimate:
        """Compute something of the effects, [resamples, levels] → [resamples], with its percentile interval."""
        seeds, trials = self._design.seeds, len(self._design.levels) if where is None else int(where.sum())
        low = high = None
        if len(np.unique(seeds)) > 1:
            low, high = percentile_interval(of(self._resampled))
        return Estimate(float(of(self._effects)[0]), low, high, trials, len(np.unique(seeds)), self._design.paired)


def _weights(design: _Design, resamples: int) -> Floats:
    """Draw how often each trial counts, [resamples, trials]: draws of its seed times draws of its combination."""
    generator = np.random.default_rng(0)
    seeds, contexts = (
        draw_counts(generator, int(codes.max()) + 1, resamples)[:, codes] for codes in (design.seeds, design.contexts)
    )
    weights: Floats = (seeds * contexts).astype(np.float64)
    return weights


def _solve(design: _Design, scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Solve the normal equations for the effects (they sum to 0), blocks eliminated.

    Args:
        design: of the trials.
        scores: [trials].
        weights: [resamples, trials].

    Returns:
        Effects, [resamples, levels], not a number where a level was not drawn; and the variance components,
        [resamples].
    """
    count, blocks = design.level_count, int(design.blocks.max()) + 1
    cells = np.zeros((len(scores), blocks * count))
    cells[np.arange(len(scores)), design.blocks * count + design.levels] = 1
    centred = scores - scores.mean()  # sums of squares of scores near 1 would lose digits
    number = (weights @ cells).reshape(-1, blocks, count)
    total = ((weights * centred) @ cells).reshape(-1, blocks, count)
    size, sums = number.sum(axis=2), total.sum(axis=2)
    inverse = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    shared = number * inverse[:, :, None]
    normal = -np.einsum("bkl,bkm->blm", shared, number)
    drawn = number.sum(axis=1)
    normal[:, range(count), range(count)] += drawn
    right = total.sum(axis=1) - np.einsum("bkl,bk->bl", shared, sums)
    # The normal matrix is singular: effects are defined up to a constant, which the pseudo-inverse sets to sum to 0.
    pseudo = np.linalg.pinv(normal, hermitian=True)
    effects = np.einsum("blm,bm->bl", pseudo, right)
    squares = (weights * centred**2).sum(axis=1) - (sums**2 * inverse).sum(axis=1) - (effects * right).sum(axis=1)
    freedom = size.sum(axis=1) - (size > 0).sum(axis=1) - (count - 1)
    noise = np.divide(squares, freedom, out=np.full_like(squares, np.nan), where=freedom > 0)
    spread = (effects**2).sum(axis=1) / max(1, count - 1)
    component = spread - noise * np.trace(pseudo, axis1=1, axis2=2) / max(1, count - 1)
    lost = (drawn == 0).any(axis=1)
    return np.where(drawn == 0, np.nan, effects), np.where(lost, np.nan, component)


def short_names(keys: list[str]) -> dict[str, str]:
    """Shorten key paths to their last parts, as many as it takes to tell them apart.

    Example:
        >>> short_names(["steps.0.start", "steps.0.training.epochs", "baseline.epochs"])
        {'steps.0.start': 'start', 'steps.0.training.epochs': 'training.epochs', 'baseline.epochs': 'baseline.epochs'}
    """
    named = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        named[key] = next(end for end in ends if sum(f".{other}".endswith(f".{end}") for other in keys) == 1)
    return named
