"""Measured latencies: their structure, that they are measured once, and what they depend on. No time is asserted."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from transformers import PreTrainedConfig, PreTrainedModel

import tiny
from plankwise.core.errors import MethodError
from plankwise.core.hardware import environment
from plankwise.encoder.shapes import prune, shapes_of
from plankwise.methods import latency, layer_sizes
from plankwise.methods.cost_table import CostTable
from plankwise.methods.exported_layers import sized_model, timed_batch, write_model
from plankwise.methods.latency import latency_costs
from plankwise.methods.layer_sizes import (
    EAGER_LEVELS,
    LatencyPrecision,
    LatencyRuntime,
    LatencyTarget,
    Size,
    TimedCall,
    spread,
)
from plankwise.methods.pruning import Pruning
from plankwise.methods.selection import select


def costs_of(model: PreTrainedModel, cache: Path, **changes: Any) -> CostTable:
    """Measure in the fewest rounds; what is measured is not looked at."""
    return latency_costs(model, **{"batch_size": 2, "tokens": 8, "cache": cache, "rounds": (2, 2), **changes})


@pytest.fixture
def measurements(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """Count the measurements made, each of which is logged."""
    caplog.set_level(logging.INFO, "plankwise")
    return lambda: sum("latency: timing" in each.getMessage() for each in caplog.records)


@contextmanager
def nothing_exported(
    config: PreTrainedConfig, sizes: Sequence[Size], call: TimedCall, target: LatencyTarget, *, progress: bool
) -> Iterator[dict[Size, Callable[[], object]]]:
    """Stand in for exports, each of which takes seconds."""
    yield {size: lambda: None for size in sizes}


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
    assert spread(12, EAGER_LEVELS.heads) == list(range(1, 13))
    assert spread(3072, EAGER_LEVELS.neurons) == list(range(256, 3073, 256))
    assert spread(24, 16)[-1] == 24
    assert len(spread(24, 16)) == 16
    assert spread(0, 16) == []


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


EXPORTS = [LatencyTarget(runtime, precision) for runtime in ("openvino", "onnx") for precision in ("fp32", "int8")]


@pytest.mark.parametrize("target", EXPORTS, ids=lambda target: f"{target.runtime}-{target.precision}")
def test_a_table_is_measured_once_for_each_runtime_and_precision(
    target: LatencyTarget, measurements: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "exported_layers", nothing_exported)
    monkeypatch.setattr(latency, "EXPORTED_LEVELS", layer_sizes.Levels(heads=2, neurons=2))
    model = tiny.model(layers=3)
    costs = costs_of(model, tmp_path, target=target, threads=2)
    assert [len(table) for table in (*costs.attention, *costs.feed_forward)] == [3] * 3 + [33] * 3
    for table in (*costs.attention, *costs.feed_forward):
        assert table[0] == 0
        assert (np.diff(table) >= 0).all()
    costs_of(model, tmp_path, target=target, threads=2)
    assert measurements() == 1
    (path,) = tmp_path.rglob(latency.TABLE)
    stored = json.loads(path.read_text())
    key = stored["measured_on"]
    assert (key["runtime"], key["precision"], key["threads"]) == (target.runtime, target.precision, 2)
    assert {"torch", "transformers", {"onnx": "onnxruntime"}.get(target.runtime, target.runtime)} <= {*key["versions"]}
    assert key["flags"] == environment()["cpu"]["flags"]
    assert stored["types"]["full_attention"]["feed_forward"]["units"] == [0, 16, 32]
    between = stored["types"]["full_attention"]["feed_forward"]["ms"]
    assert costs.feed_forward[0][8] == pytest.approx((between[0] + between[1]) / 2)  # interpolated


def test_layers_are_exported_and_timed_where_they_will_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Four real exports: one and two empty layers, one with heads, one with neurons."""
    caplog.set_level(logging.INFO, "plankwise")
    monkeypatch.setattr(latency, "EXPORTED_LEVELS", layer_sizes.Levels(heads=1, neurons=1))
    model = tiny.model(layers=3)
    before = copy.deepcopy(model.state_dict())
    costs = costs_of(model, tmp_path, target=LatencyTarget("openvino", "int8"), threads=2)
    assert costs.full() >= costs.fixed > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "timing 4 sizes of a layer on openvino int8, 2 streams of one thread, 2 × 8 tokens, about" in caplog.text


def test_the_key_tells_every_runtime_and_precision_apart() -> None:
    call, machine = TimedCall(2, 8, 1), environment()
    made = [latency._key(tiny.model(), call, target, machine) for target in (LatencyTarget(), *EXPORTS)]
    assert len({json.dumps(each, sort_keys=True) for each in made}) == 5
    other = {**machine, "cpu": {**machine["cpu"], "flags": ["none of these"]}}
    assert latency._key(tiny.model(), call, LatencyTarget(), other) != made[0]


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_int8_layers_multiply_integers_where_they_run(runtime: LatencyRuntime, tmp_path: Path) -> None:
    """The graph after the runtime's own optimizations is looked at, not the file."""
    model, call = tiny.model(hidden_size=64, intermediate_size=128), TimedCall(2, 8, 1)
    found = {}
    for precision in get_args(LatencyPrecision):
        (tmp_path / precision).mkdir()
        batch = timed_batch(model.config, call)
        sized = sized_model(model.config, ("full_attention", "feed_forward", 64))
        path = write_model(sized, LatencyTarget(runtime, precision), tmp_path / precision, batch)
        found[precision] = integer_products(path, tmp_path / f"{precision}.onnx")
    assert found["fp32"] == 0
    assert found["int8"] >= 2  # one on each side of the neurons


def integer_products(path: Path, optimized: Path) -> int:
    if path.suffix == ".xml":
        import openvino

        ran = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
        products = [each.get_rt_info() for each in ran.get_ops()]
        kinds = [(each["layerType"].astype(str), each["runtimePrecision"].astype(str)) for each in products]
        return sum(kind == "FullyConnected" and precision in ("u8", "i8") for kind, precision in kinds)
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(optimized), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(str(optimized)).graph.node]
    return sum(each in ("MatMulIntegerToFloat", "QLinearMatMul", "QGemm") for each in operators)


@pytest.mark.parametrize("kind", tiny.STRUCTURES)
def test_a_timed_model_has_the_widths_of_every_architecture_and_few_tokens(kind: str) -> None:
    config = copy.deepcopy(tiny.model(kind).config)
    config.vocab_size = 4_000
    call = TimedCall(2, 8, 1)
    for size, expected in ((("attention", 1), [(1, 0)]), (("feed_forward", 7), [(0, 7)]), (("empty", 2), [(0, 0)] * 2)):
        attention_type = sorted(layer_sizes.largest_layers(config))[-1]
        model = sized_model(config, (attention_type, *size))
        assert [(len(shape.heads), shape.neurons) for shape in shapes_of(model.config)] == expected
        assert model.config.hidden_size == config.hidden_size
        assert model.get_input_embeddings().num_embeddings < 600
        inputs = {name: torch.from_numpy(value) for name, value in timed_batch(config, call).items()}
        assert model(**inputs).logits.isfinite().all()


def test_a_runtime_that_is_not_installed_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    settings = Pruning(measure="latency", latency_runtime="onnx", latency_shape=(8, 64))
    with pytest.raises(
        MethodError, match="latency_runtime onnx needs onnx and onnxruntime and onnxscript: pip install"
    ):
        settings.plan(tiny.spec())
    with pytest.raises(MethodError, match="cannot measure at 128 tokens: the model has 72 positions"):
        Pruning(measure="latency").plan(tiny.spec())
