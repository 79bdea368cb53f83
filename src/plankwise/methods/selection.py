"""Selection of the heads and neurons that stay: the least importance is lost under a budget of cost.

Importance is additive: removing a set of units loses the sum of their importance. Each layer therefore keeps its most
important heads, whatever their number, and what remains is to choose a number of heads and a number of neurons for each
layer. This is a multiple-choice knapsack problem (Kellerer, Pferschy, Pisinger 2004, *Knapsack Problems*, chapter 11),
solved by dynamic programming over whole units of cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import MethodError
from plankwise.encoder.cost import linear_flops_per_token
from plankwise.encoder.shapes import LayerShape, shapes_of, with_shapes
from plankwise.methods.cost_table import CostTable, Floats

BUCKETS = 20_000  # units that a budget is divided into where the costs have no common unit of their own


@dataclass(frozen=True)
class Selection:
    """The heads and neurons that stay.

    Attributes:
        heads: for each layer, positions among its heads, ascending.
        neurons: the same for neurons.
    """

    heads: list[list[int]]
    neurons: list[list[int]]

    def cost(self, costs: CostTable) -> float:
        """Return the cost of a model with these heads and neurons."""
        return costs.of([len(each) for each in self.heads], [len(each) for each in self.neurons])


@dataclass(frozen=True)
class _Part:
    """The choices for one layer's attention or feed-forward part.

    Attributes:
        levels: numbers of units that may stay.
        costs: of each level.
        losses: of each level, the importance of the units that go.
    """

    levels: list[int]
    costs: Floats
    losses: Floats


def select(
    heads: Sequence[Floats], neurons: Sequence[Floats], costs: CostTable, budget: float, *, neuron_step: int = 1
) -> Selection:
    """Select units so that the least importance is lost while the cost is within `budget`.

    The selection is optimal where costs are whole multiples of a unit, as FLOPs are. Elsewhere each cost is rounded up
    to 1/20,000 of the budget, so that the budget holds and a little of it may be unused. A layer may lose all its
    heads, all its neurons or both.

    Args:
        heads: for each layer, the importance of its heads, [heads], not negative.
        neurons: the same for neurons.
        costs: of every number of heads and neurons in each layer.
        budget: the highest total cost, including the fixed cost.
        neuron_step: each layer keeps a multiple of this many neurons, or all of them.

    Raises:
        MethodError: if the budget is below the cost of a model without heads and neurons.
    """
    # Attention of all layers, then feed-forward of all layers.
    parts = [_part(importance, table, 1) for importance, table in zip(heads, costs.attention, strict=True)]
    parts += [
        _part(importance, table, neuron_step) for importance, table in zip(neurons, costs.feed_forward, strict=True)
    ]
    smallest = costs.fixed + sum(float(part.costs.min()) for part in parts)
    _require(smallest, budget, costs.unit)
    chosen = [part.levels[-1] for part in parts] if costs.full() <= budget else _knapsack(parts, budget - smallest)
    return _selection(heads, neurons, chosen[: len(heads)], chosen[len(heads) :])


def select_uniform(
    heads: Sequence[Floats],
    neurons: Sequence[Floats],
    costs: CostTable,
    budget: float,
    *,
    neuron_step: int = 1,
    whole_heads: bool = False,
) -> Selection:
    """Select as `select` does, but the same number of heads and of neurons in all layers; which ones may differ.

    Args:
        heads: for each layer, the importance of its heads, [heads], not negative.
        neurons: the same for neurons.
        costs: of every number of heads and neurons in each layer.
        budget: the highest total cost, including the fixed cost.
        neuron_step: each layer keeps a multiple of this many neurons, or as many as the narrowest layer has.
        whole_heads: keep all heads and at least one step of neurons, so that a plain configuration can express the
            result.

    Raises:
        MethodError: if no such selection is within the budget, or layers that keep all heads differ in their number.
    """
    counts = [len(importance) for importance in heads]
    if whole_heads and len(set(counts)) > 1:
        raise MethodError(f"layers of {min(counts)} to {max(counts)} heads cannot keep all of them and be equal")
    # Two numbers describe a uniform model, so every pair of levels is tried.
    head_levels = [counts[0]] if whole_heads else list(range(min(counts) + 1))
    neuron_levels = _levels(min(len(importance) for importance in neurons), neuron_step)[int(whole_heads) :]
    if not neuron_levels:
        raise MethodError("a layer without neurons cannot be part of a plain model")
    attention = _summed(heads, costs.attention, head_levels)
    feed_forward = _summed(neurons, costs.feed_forward, neuron_levels)
    total = attention.costs[:, None] + feed_forward.costs + costs.fixed  # [head levels, neuron levels]
    _require(float(total.min()), budget, costs.unit)
    losses = np.where(total <= budget, attention.losses[:, None] + feed_forward.losses, np.inf)
    # Of equal losses the cheapest: units of no importance need not stay.
    best = np.lexsort((total.ravel(), losses.ravel()))[0]
    at_heads, at_neurons = np.unravel_index(best, losses.shape)
    depth = len(heads)
    return _selection(heads, neurons, [head_levels[at_heads]] * depth, [neuron_levels[at_neurons]] * depth)


def cut_evenly(config: PreTrainedConfig, share: float, whole_heads: bool = False) -> PreTrainedConfig:
    """Copy `config` for a model that keeps this share of each layer's heads and neurons, at least one of each."""

    def left(shape: LayerShape) -> LayerShape:
        heads = shape.heads if whole_heads else shape.heads[: max(1, round(len(shape.heads) * share))]
        return LayerShape(heads, max(1, round(shape.neurons * share)))

    return with_shapes(config, [left(shape) for shape in shapes_of(config)])


def cut_summary(model: PreTrainedModel, smaller: PreTrainedModel) -> dict[str, Any]:
    """Describe a cut for the log: operations before and after, and each layer's heads and neurons."""
    return {
        "linear_flops_per_token": [linear_flops_per_token(each) for each in (model, smaller)],
        "heads_and_neurons": [[len(shape.heads), shape.neurons] for shape in shapes_of(smaller.config)],
    }


def _require(smallest: float, budget: float, unit: str) -> None:
    if smallest > budget:
        raise MethodError(f"a budget of {budget:g} {unit} cannot be met; the smallest possible is {smallest:g}")


def _levels(units: int, step: int) -> list[int]:
    """Return how many of `units` may stay: multiples of `step`, and all."""
    return sorted({*range(0, units, step), units})


def _part(importance: Floats, table: Floats, step: int) -> _Part:
    levels = _levels(len(importance), step)
    return _Part(levels, np.asarray(table, dtype=np.float64)[levels], _losses(importance)[levels])


def _losses(importance: Floats) -> Floats:
    """Return the least importance that is lost when 0, 1, … units stay, [units + 1]."""
    lost = np.concatenate([[0.0], np.cumsum(np.sort(importance))])
    return lost[::-1]


def _summed(importance: Sequence[Floats], tables: Sequence[Floats], levels: list[int]) -> _Part:
    """Add up all layers at equal levels, as one part."""
    costs = np.sum([np.asarray(table, dtype=np.float64)[levels] for table in tables], axis=0)
    losses = np.sum([_losses(each)[levels] for each in importance], axis=0)
    return _Part(levels, costs, losses)


def _knapsack(parts: Sequence[_Part], available: float) -> list[int]:
    """Choose one level of each part with the least total loss, at a total cost of at most `available`.

    Costs count from each part's cheapest level.
    """
    extra = [part.costs - part.costs.min() for part in parts]
    unit, buckets = _unit(extra, available)
    best = np.full(buckets + 1, np.inf)  # least loss of the parts so far, by the units spent on them
    best[0] = 0.0
    choices = []
    for part, above in zip(parts, extra, strict=True):
        spent = np.ceil(above / unit).astype(np.int64)
        best, choice = _add(best, spent, part.losses)
        choices.append((spent, choice))
    at, chosen = int(np.argmin(best)), []
    # Back from the last part: its level at this spending says what was left for the parts before it.
    for part, (spent, choice) in zip(reversed(parts), reversed(choices), strict=True):
        level = int(choice[at])
        chosen.append(part.levels[level])
        at -= int(spent[level])
    return chosen[::-1]


def _unit(costs: Sequence[Floats], available: float) -> tuple[float, int]:
    """Return the unit of cost and the number of units available: the costs' common unit unless it is too fine."""
    values = np.concatenate(costs)
    if np.array_equal(values, np.rint(values)):
        common = int(np.gcd.reduce(values.astype(np.int64)))
        if common and available / common <= BUCKETS:
            return float(common), math.floor(available / common)
    slightly_less = available * (1 - 1e-12)  # so that rounding cannot lift a sum of floats above the budget
    return (slightly_less / BUCKETS, BUCKETS) if available > 0 else (1.0, 0)


def _add(best: Floats, spent: NDArray[np.int64], losses: Floats) -> tuple[Floats, NDArray[np.int16]]:
    """Add one part to the dynamic program: return the least loss at each spending, and the level that gives it."""
    found = np.full_like(best, np.inf)
    choice = np.zeros(len(best), dtype=np.int16)
    for level, (units, loss) in enumerate(zip(spent, losses, strict=True)):
        if units >= len(best):
            continue
        candidate = best[: len(best) - units] + loss  # at each spending: the parts before it had `units` less
        better = candidate < found[units:]
        found[units:][better] = candidate[better]
        choice[units:][better] = level
    return found, choice


def _selection(
    heads: Sequence[Floats], neurons: Sequence[Floats], head_counts: list[int], neuron_counts: list[int]
) -> Selection:
    return Selection(
        [_top(importance, count) for importance, count in zip(heads, head_counts, strict=True)],
        [_top(importance, count) for importance, count in zip(neurons, neuron_counts, strict=True)],
    )


def _top(importance: Floats, count: int) -> list[int]:
    """Return the positions of the `count` most important units, ascending; of equal ones the first."""
    order = np.argsort(-np.asarray(importance), kind="stable")
    return sorted(int(each) for each in order[:count])
