"""Selection against brute force, hand-made examples and its own promises; predicted costs against counted ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from transformers import PreTrainedModel

import tiny
from plankwise.core.errors import MethodError
from plankwise.encoder.cost import count_parameters, linear_flops_per_token
from plankwise.encoder.shapes import is_plain, prune
from plankwise.methods.cost_table import CostTable, Floats, flops_costs, parameter_costs
from plankwise.methods.selection import Selection, select, select_uniform


def costs_of(attention: list[list[float]], feed_forward: list[list[float]], fixed: float = 0.0) -> CostTable:
    return CostTable([np.array(each) for each in attention], [np.array(each) for each in feed_forward], fixed, "units")


def loss(kept: list[list[int]], importance: list[Floats]) -> float:
    return sum(float(each.sum() - each[chosen].sum()) for chosen, each in zip(kept, importance, strict=True))


def total_loss(kept: Selection, heads: list[Floats], neurons: list[Floats]) -> float:
    return loss(kept.heads, heads) + loss(kept.neurons, neurons)


def subsets(units: int, step: int) -> list[list[int]]:
    return [
        list(chosen)
        for size in range(units + 1)
        if size % step == 0 or size == units
        for chosen in itertools.combinations(range(units), size)
    ]


def brute_force(heads: list[Floats], neurons: list[Floats], costs: CostTable, budget: float, step: int) -> float:
    depth = len(heads)
    choices = [*(subsets(len(each), 1) for each in heads), *(subsets(len(each), step) for each in neurons)]
    every = (Selection(list(each[:depth]), list(each[depth:])) for each in itertools.product(*choices))
    return min(total_loss(kept, heads, neurons) for kept in every if kept.cost(costs) <= budget)


def random_case(seed: int, whole: bool) -> tuple[list[Floats], list[Floats], CostTable, float]:
    draw = np.random.default_rng(seed)
    heads = [draw.random(int(draw.integers(0, 4))) for _ in range(2)]
    neurons = [draw.random(int(draw.integers(0, 5))) for _ in range(2)]

    def table(units: int) -> Floats:
        steps = draw.integers(0, 6, units).astype(float) if whole else draw.random(units)
        return np.concatenate([[0.0], np.cumsum(steps)])

    costs = CostTable([table(len(each)) for each in heads], [table(len(each)) for each in neurons], 3.0, "units")
    return heads, neurons, costs, float(draw.uniform(3.0, costs.full() + 0.5))


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_the_best_there_is(seed: int, step: int) -> None:
    heads, neurons, costs, budget = random_case(seed, whole=True)
    kept = select(heads, neurons, costs, budget, neuron_step=step)
    assert kept.cost(costs) <= budget
    assert total_loss(kept, heads, neurons) == pytest.approx(brute_force(heads, neurons, costs, budget, step))


@pytest.mark.parametrize("seed", range(20))
def test_costs_of_no_common_unit_keep_the_budget_and_lose_next_to_nothing(seed: int) -> None:
    heads, neurons, costs, budget = random_case(seed, whole=False)
    kept = select(heads, neurons, costs, budget)
    assert kept.cost(costs) <= budget
    best = brute_force(heads, neurons, costs, budget, 1)
    slightly_less = 3.0 + (budget - 3.0) * (1 - 1e-3)
    assert best <= total_loss(kept, heads, neurons) + 1e-12
    assert total_loss(kept, heads, neurons) <= brute_force(heads, neurons, costs, slightly_less, 1) + 1e-12


def test_a_case_worked_by_hand() -> None:
    heads = [np.array([5.0, 1.0]), np.array([2.0, 3.0])]
    neurons = [np.array([1.0, 1.0, 4.0]), np.array([0.0, 0.0, 0.0])]
    costs = costs_of([[0, 2, 4]] * 2, [[0, 1, 2, 3]] * 2, fixed=10)
    assert costs.full() == 24
    # 7 above the fixed 10: heads worth 5, 3, 2 cost 2 each (6), the neuron worth 4 costs 1.
    assert select(heads, neurons, costs, 17) == Selection([[0], [0, 1]], [[2], []])
    assert select(heads, neurons, costs, 16.5) == Selection(
        [[0], [1]], [[0, 2], []]
    )  # 2 + 2 + 1 + 1: two neurons beat 2
    assert select(heads, neurons, costs, 10) == Selection([[], []], [[], []])


def test_nothing_goes_where_all_fits() -> None:
    heads, neurons = [np.zeros(2)], [np.zeros(3)]
    costs = costs_of([[0, 2, 4]], [[0, 1, 2, 3]])
    assert select(heads, neurons, costs, 7) == Selection([[0, 1]], [[0, 1, 2]])


def test_a_budget_that_cannot_be_met_is_refused_in_words() -> None:
    heads, neurons = [np.ones(2)], [np.ones(3)]
    costs = costs_of([[1, 2, 4]], [[0, 1, 2, 3]], fixed=10)
    message = "a budget of 10.5 units cannot be met; the smallest possible is 11"
    for choose in (select, select_uniform):
        with pytest.raises(MethodError, match=message):
            choose(heads, neurons, costs, 10.5)
    with pytest.raises(MethodError, match="smallest possible is 15"):
        select_uniform(heads, neurons, costs, 14.5, whole_heads=True)


def top(importance: Floats, count: int) -> list[int]:
    return [int(each) for each in np.argsort(-importance)[:count]]


@pytest.mark.parametrize("seed", range(10))
def test_the_uniform_choice_is_the_best_of_its_kind(seed: int) -> None:
    draw = np.random.default_rng(seed)
    heads, neurons = [draw.random(3) for _ in range(3)], [draw.random(5) for _ in range(3)]
    costs = costs_of([[0, 2, 4, 6]] * 3, [[0, 1, 2, 3, 4, 5]] * 3, fixed=4)
    budget = float(draw.uniform(4, costs.full()))
    kept = select_uniform(heads, neurons, costs, budget, neuron_step=2)
    assert kept.cost(costs) <= budget
    assert len({len(each) for each in kept.heads}) == len({len(each) for each in kept.neurons}) == 1
    sizes = [(h, n) for h in range(4) for n in (0, 2, 4, 5)]
    alike = [Selection([top(each, h) for each in heads], [top(each, n) for each in neurons]) for h, n in sizes]
    best = min(total_loss(each, heads, neurons) for each in alike if each.cost(costs) <= budget)
    assert total_loss(kept, heads, neurons) == pytest.approx(best)


@pytest.mark.parametrize("kind", tiny.STRUCTURES)
def test_whole_heads_make_a_plain_model(kind: str) -> None:
    model = tiny.model(kind)
    heads, neurons = importance(model)
    costs = flops_costs(model)
    kept = select_uniform(heads, neurons, costs, 0.75 * costs.full(), whole_heads=True)
    smaller = prune(model, kept.heads, kept.neurons)
    assert is_plain(smaller.config)
    assert linear_flops_per_token(smaller) <= 0.75 * linear_flops_per_token(model)


def test_layers_of_different_heads_cannot_all_keep_theirs() -> None:
    costs = costs_of([[0, 1], [0, 1, 2]], [[0, 1], [0, 1]])
    with pytest.raises(MethodError, match="layers of 1 to 2 heads"):
        select_uniform([np.ones(1), np.ones(2)], [np.ones(1)] * 2, costs, 9, whole_heads=True)


def importance(model: PreTrainedModel, seed: int = 0) -> tuple[list[Floats], list[Floats]]:
    draw, costs = np.random.default_rng(seed), flops_costs(model)
    return [draw.random(len(each) - 1) for each in costs.attention], [
        draw.random(len(each) - 1) for each in costs.feed_forward
    ]


COUNTERS = [(flops_costs, linear_flops_per_token), (parameter_costs, count_parameters)]


@pytest.mark.parametrize(("predicted", "counted"), COUNTERS)
@pytest.mark.parametrize("kind", tiny.STRUCTURES)
def test_predicted_cost_is_that_of_the_pruned_model(
    kind: str, predicted: Callable[[PreTrainedModel], CostTable], counted: Callable[[PreTrainedModel], int]
) -> None:
    model = tiny.model(kind)
    costs = predicted(model)
    assert costs.full() == counted(model)
    units = len(costs.attention[0]) - 1
    kept = Selection([[], [0], list(range(units)), [units - 1]], [[3, 5], [], list(range(32)), list(range(7))])
    smaller = prune(model, kept.heads, kept.neurons)
    assert kept.cost(costs) == counted(smaller)
    again = predicted(smaller)  # of a model that has lost units already
    assert again.full() == counted(smaller)
    less = Selection([[] for _ in range(4)], [[0], [], [], [1, 2]])
    assert less.cost(again) == counted(prune(smaller, less.heads, less.neurons))


def test_a_model_of_the_size_of_bert_base_uses_its_budget_up() -> None:
    draw = np.random.default_rng(0)
    heads, neurons = [draw.random(12) for _ in range(12)], [draw.random(3072) for _ in range(12)]
    attention, feed_forward = [np.arange(0, 13.0) * 196_800] * 12, [np.arange(0, 3073.0) * 1_537] * 12
    costs = CostTable(attention, feed_forward, 24e6, "parameters")
    kept = select(heads, neurons, costs, 50e6, neuron_step=32)
    assert 49.9e6 < kept.cost(costs) <= 50e6
    assert all(len(each) % 32 == 0 for each in kept.neurons)
