"""Measured latencies: their structure, that they are measured once, and what they depend on. No time is asserted."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import tiny
from plankwise.core.errors import MethodError
from plankwise.core.hardware import environment
from plankwise.encoder.shapes import prune
from plankwise.methods import latency
from plankwise.methods.cost_table import CostTable
from plankwise.methods.latency import latency_costs
from plankwise.methods.selection import select


def costs_of(model: PreTrainedModel, cache: Path, **changes: Any) -> CostTable:
    """Measure in the fewest rounds; what is measured is not looked at."""
    return latency_costs(model, **{"batch_size": 2, "tokens": 8, "cache": cache, "rounds": (2, 2), **changes})


@pytest.fixture
def measurements(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """Count the measurements made, each of which is logged."""
    caplog.set_level(logging.INFO, "plankwise")
    return lambda: sum("latency: timing" in each.getMessage() for each in caplog.records)


@pytest.mark.parametrize("kind", tiny.STRUCTURES)
def test_every_architecture_has_a_rising_table_and_is_left_alone(kind: str, tmp_path: Path) -> None:
    model = tiny.model(kind)
    before, outputs = copy.deepcopy(model.state_dict()), model(**tiny.batch()).logits
    costs = costs_of(model, tmp_path)
    units = 1 if kind == "eurobert" else 2
    assert [len(table) for table in costs.attention] == [units + 1] * 4
    assert [len(table) for table in costs.feed_forward] == [33] * 4
    for table in (*costs.attention, *costs.feed_forward):
        assert table[0] == 0
        assert (np.diff(table) >= 0).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(**tiny.batch()).logits, outputs)


def test_it_measures_once(measurements: Callable[[], int], tmp_path: Path) -> None:
    first = costs_of(tiny.model(), tmp_path)
    second = costs_of(tiny.model(seed=1), tmp_path)
    assert measurements() == 1
    for one, other in zip(
        (*first.attention, *first.feed_forward), (*second.attention, *second.feed_forward), strict=True
    ):
        assert np.array_equal(one, other)
    deeper = costs_of(tiny.model(layers=6), tmp_path)
    assert measurements() == 1
    assert len(deeper.attention) == 6
    assert deeper.fixed >= first.fixed


def another_cpu() -> dict[str, Any]:
    described = environment()
    return {**described, "cpu": {**described["cpu"], "model": "another"}}


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (tiny.model(), {"batch_size": 3}),
        (tiny.model(), {"tokens": 9}),
        (tiny.model(), {"machine": another_cpu}),
        (tiny.model(), {"threads": torch.get_num_threads() + 1}),
        (tiny.model(intermediate_size=24), {}),
        (tiny.model(num_attention_heads=4), {}),
        (tiny.model("roberta"), {}),
    ],
    ids=["batch", "tokens", "cpu", "threads", "neurons", "heads", "architecture"],
)
def test_a_time_is_measured_again_where_something_it_depends_on_differs(
    model: PreTrainedModel, changes: dict[str, Any], measurements: Callable[[], int], tmp_path: Path
) -> None:
    costs_of(tiny.model(), tmp_path)
    threads = torch.get_num_threads()
    costs_of(model, tmp_path, **changes)
    assert measurements() == 2
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("damage", ["", "{", '{"types": {}}', '{"types": {"full_attention": {"attention": 1}}}'])
def test_a_damaged_table_is_measured_again(damage: str, measurements: Callable[[], int], tmp_path: Path) -> None:
    costs_of(tiny.model(), tmp_path)
    (path,) = tmp_path.rglob(latency.TABLE)
    path.write_text(damage)
    costs_of(tiny.model(), tmp_path)
    costs_of(tiny.model(), tmp_path)
    assert measurements() == 2
    assert json.loads(path.read_text())["types"]


def test_it_takes_layers_of_their_own_sizes(tmp_path: Path) -> None:
    model = prune(tiny.model(), [[], [0], [0, 1], [1]], [[], list(range(16)), [0], list(range(30))])
    costs = costs_of(model, tmp_path)
    assert [len(table) - 1 for table in costs.attention] == [0, 1, 2, 1]
    assert [len(table) - 1 for table in costs.feed_forward] == [0, 16, 1, 30]
    importance = [[np.ones(len(table) - 1) for table in part] for part in (costs.attention, costs.feed_forward)]
    budget = costs.fixed + 0.5 * (costs.full() - costs.fixed)
    assert select(importance[0], importance[1], costs, budget).cost(costs) <= budget
    nothing = prune(tiny.model(), [[]] * 4, [[]] * 4)
    left = costs_of(nothing, tmp_path)
    assert left.full() == left.fixed


def test_levels_are_few_and_hold_the_last() -> None:
    assert latency._levels(12, latency.MAX_HEAD_LEVELS) == list(range(1, 13))
    assert latency._levels(3072, latency.NEURON_LEVELS) == list(range(256, 3073, 256))
    assert latency._levels(24, 16)[-1] == 24
    assert len(latency._levels(24, 16)) == 16
    assert latency._levels(0, 16) == []


def test_noise_is_smoothed_into_a_table_that_never_falls() -> None:
    times = {("full", "empty", 1): 5.0, ("full", "empty", 2): 6.0}
    times |= {("full", "attention", count): 5.0 + above for count, above in ((1, -0.5), (2, 2.0), (3, 1.0), (4, 4.0))}
    table = latency._table(times, "full")
    assert table["attention"] == {"units": [0, 1, 2, 3, 4], "ms": [0.0, 0.0, 1.5, 1.5, 4.0]}
    assert table["feed_forward"] == {"units": [0], "ms": [0.0]}
    assert (table["around_ms"], table["between_ms"]) == (4.0, 1.0)


def test_more_tokens_than_positions_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="cannot measure at 100 tokens: the model has 72 positions"):
        costs_of(tiny.model(), tmp_path, tokens=100)


def test_it_logs_what_it_measures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "plankwise"):
        costs_of(tiny.model(), tmp_path, threads=1)
    assert "latency: timing 16 sizes of a layer on cpu, 1 threads, 2 × 8 tokens, about " in caplog.text
