"""Measured latencies: their structure, that they are measured once, and what they depend on. No time is asserted."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from plankwise.core.errors import MethodError
from plankwise.encoder.shapes import prune
from plankwise.methods import latency
from plankwise.methods.latency import latency_costs
from plankwise.methods.selection import select

CALL: dict[str, Any] = {"batch_size": 2, "tokens": 8}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "ROUNDS", (2, 2))


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the measurements made."""
    made: list[int] = []
    measure = latency._measure

    def counted(*arguments: Any) -> dict[str, Any]:
        made.append(1)
        return measure(*arguments)

    monkeypatch.setattr(latency, "_measure", counted)
    return made


@pytest.mark.parametrize("kind", tiny.ARCHITECTURES)
def test_every_architecture_has_a_rising_table_and_is_left_alone(kind: str, tmp_path: Path) -> None:
    model = tiny.model(kind)
    before, outputs = copy.deepcopy(model.state_dict()), model(**tiny.batch()).logits
    costs = latency_costs(model, **CALL, cache=tmp_path)
    units = 1 if kind == "eurobert" else 2
    assert [len(table) for table in costs.attention] == [units + 1] * 4
    assert [len(table) for table in costs.feed_forward] == [33] * 4
    for table in (*costs.attention, *costs.feed_forward):
        assert table[0] == 0
        assert (np.diff(table) >= 0).all()
    assert costs.fixed > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(**tiny.batch()).logits, outputs)


def test_it_measures_once(measurements: list[int], tmp_path: Path) -> None:
    first = latency_costs(tiny.model(), **CALL, cache=tmp_path)
    second = latency_costs(tiny.model(seed=1), **CALL, cache=tmp_path)
    assert len(measurements) == 1
    for one, other in zip(
        (*first.attention, *first.feed_forward), (*second.attention, *second.feed_forward), strict=True
    ):
        assert np.array_equal(one, other)
    deeper = latency_costs(tiny.model(layers=6), **CALL, cache=tmp_path)
    assert len(measurements) == 1
    assert len(deeper.attention) == 6
    assert deeper.fixed >= first.fixed


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 3},
        {"tokens": 9},
        {"model": tiny.model(intermediate_size=24)},
        {"model": tiny.model(num_attention_heads=4)},
        {"model": tiny.model("roberta")},
        {"cpu": "another"},
        {"threads": torch.get_num_threads() + 1},
    ],
)
def test_whatever_a_time_depends_on_is_measured_anew(
    changes: dict[str, Any], measurements: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latency_costs(tiny.model(), **CALL, cache=tmp_path)
    if "cpu" in changes:
        monkeypatch.setattr("plankwise.core.runtime._cpu_model", lambda: changes["cpu"])
    threads = torch.get_num_threads()
    call = {name: value for name, value in changes.items() if name not in ("cpu", "model")}
    latency_costs(changes.get("model", tiny.model()), **{**CALL, **call}, cache=tmp_path)
    assert len(measurements) == 2
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("damage", ["", "{", '{"types": {}}', '{"types": {"full_attention": {"attention": 1}}}'])
@pytest.mark.parametrize("same_size", [False, True])
def test_a_damaged_table_is_measured_anew(
    damage: str, same_size: bool, measurements: list[int], tmp_path: Path
) -> None:
    latency_costs(tiny.model(), **CALL, cache=tmp_path)
    (path,) = tmp_path.rglob(latency.TABLE)
    path.write_text(damage.ljust(path.stat().st_size) if same_size else damage)
    latency_costs(tiny.model(), **CALL, cache=tmp_path)
    latency_costs(tiny.model(), **CALL, cache=tmp_path)
    assert len(measurements) == 2
    assert json.loads(path.read_text())["types"]


def test_it_takes_layers_of_their_own_sizes(tmp_path: Path) -> None:
    model = prune(tiny.model(), [[], [0], [0, 1], [1]], [[], list(range(16)), [0], list(range(30))])
    costs = latency_costs(model, **CALL, cache=tmp_path)
    assert [len(table) - 1 for table in costs.attention] == [0, 1, 2, 1]
    assert [len(table) - 1 for table in costs.feed_forward] == [0, 16, 1, 30]
    importance = [[np.ones(len(table) - 1) for table in part] for part in (costs.attention, costs.feed_forward)]
    budget = costs.fixed + 0.5 * (costs.full() - costs.fixed)
    assert select(*importance, costs, budget).cost(costs) <= budget
    nothing = prune(tiny.model(), [[]] * 4, [[]] * 4)
    left = latency_costs(nothing, **CALL, cache=tmp_path)
    assert left.full() == left.fixed


def test_levels_are_few_and_hold_the_last() -> None:
    assert latency._levels(12, latency.LARGEST_HEADS) == list(range(1, 13))
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
        latency_costs(tiny.model(), 2, 100, cache=tmp_path)


def test_it_says_what_it_measures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "plankwise"):
        latency_costs(tiny.model(), **CALL, cache=tmp_path)
    assert "latency: timing 16 sizes of a layer on cpu, " in caplog.text
