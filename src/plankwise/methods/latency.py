"""The cost of each number of heads and neurons in milliseconds, measured on this machine.

FLOPs say little about time where matrices get small; ZipLM (Kurtic, Frantar, Alistarh 2023, arXiv 2302.04089) therefore
prunes by a table of measured times. A layer is timed inside the encoder, which for this runs that one layer only: with
some heads and no neurons, with no heads and some neurons, and with neither, whose time is subtracted. It is timed in
torch eager, or exported, in the runtime and the precision that the model will run in: int8 costs relatively more for
the parts around its products, which pruning cannot cut. All sizes take turns in every round, so that a machine that
slows down does so for all of them; the time of a size is the median.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.isotonic import isotonic_regression
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.cache import built_once, cache_folder
from plankwise.core.distributed import agree, is_main_process
from plankwise.core.errors import MethodError
from plankwise.core.files import write_json
from plankwise.core.hardware import environment, fixed_threads, version_of
from plankwise.core.packages import require
from plankwise.core.progress import bar
from plankwise.core.timing import Run, take_turns
from plankwise.encoder.anatomy import layer_types
from plankwise.encoder.configuration import depth_key, usable_positions
from plankwise.encoder.shapes import shapes_of
from plankwise.methods.cost_table import CostTable, Floats
from plankwise.methods.eager_layers import eager_layers
from plankwise.methods.exported_layers import exported_layers
from plankwise.methods.layer_sizes import (
    EAGER_LEVELS,
    EXPORTED_LEVELS,
    LatencyTarget,
    Size,
    TimedCall,
    largest_layers,
    timed_sizes,
)

logger = logging.getLogger(__name__)
FORMAT = 2  # of the stored table; a table of another format is measured again
TABLE = "table.json"
ROUNDS = (5, 30)  # fewest and most
TARGET_SECONDS = 20.0  # duration of a measurement, within these rounds
UNTIMED_KEYS = ("_name_or_path", "transformers_version", "problem_type")  # of a configuration: no influence on time
IN_TORCH = LatencyTarget()
PACKAGES = {"torch": (), "openvino": ("openvino",), "onnx": ("onnx", "onnxruntime", "onnxscript")}


def check_latency(config: PreTrainedConfig, target: LatencyTarget, tokens: int) -> None:
    """Refuse what cannot be measured.

    Raises:
        MethodError: if the model has fewer positions than `tokens`, or the runtime is not installed.
    """
    positions = usable_positions(config)
    if tokens > positions:
        raise MethodError(f"cannot measure at {tokens} tokens: the model has {positions} positions")
    require(f"latency_runtime {target.runtime}", *PACKAGES[target.runtime], error=MethodError)


def latency_costs(
    model: PreTrainedModel,
    *,
    batch_size: int = 8,
    tokens: int = 128,
    target: LatencyTarget = IN_TORCH,
    threads: int | None = None,
    cache: Path | None = None,
    progress: bool = False,
    rounds: tuple[int, int] = ROUNDS,
    machine: Callable[[], Mapping[str, Any]] = environment,
) -> CostTable:
    """Measure the cost of heads and neurons in milliseconds of one call on this machine.

    In torch, that is one call on the model's device. In another runtime it is a call of prediction in throughput mode
    on the CPU: as many run at once as there are threads, each on one of them, and the time of all is divided by their
    number. Each combination of architecture, sizes, machine, runtime, precision, number of threads and shape of the
    call is measured once and stored. The fixed cost is that of the encoder's embeddings, norms and pooler; that of a
    task's head is part of it where layers are exported.

    Args:
        model: for torch, on the device and in the precision to measure; it is not changed.
        batch_size: texts in the call.
        tokens: in each text.
        target: the runtime and precision in which the smaller model will run.
        threads: on a CPU; `None` takes torch's current number in torch, and all cores elsewhere.
        cache: folder of stored measurements; the user's cache by default.
        progress: whether to show progress bars.
        rounds: the fewest and the most; between them the measurement takes about 20 seconds. Exporting comes before it,
            and takes half a minute to a minute for a small encoder on two cores.
        machine: describes this machine, as `environment` does.

    Raises:
        MethodError: if the model has fewer positions than `tokens`, or the runtime is not installed or cannot run it.
        OutputError: if the cache cannot be written to.
    """
    check_latency(model.config, target, tokens)
    elsewhere = target.runtime != "torch"
    with fixed_threads(None if elsewhere else threads) as of_torch:
        used = (threads or os.cpu_count() or 1) if elsewhere else of_torch
        call = TimedCall(batch_size, tokens, used)
        key = _key(model, call, target, machine())
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        folder = (cache_folder() / "latency" if cache is None else cache) / name
        measure = partial(_measure, model, call, target, rounds=rounds, progress=progress)
        table = _stored(folder, lambda: {"measured_on": key, "types": measure()})
    # Processes that disagreed would select different heads, and train different networks.
    agree(json.dumps(table, sort_keys=True), "the measured latencies")
    return _costs(model, table["types"])


def _costs(model: PreTrainedModel, types: dict[str, Any]) -> CostTable:
    own = layer_types(model.config)
    attention, feed_forward = [], []
    for kind, shape in zip(own, shapes_of(model.config), strict=True):
        attention.append(_interpolated(types[kind]["attention"], len(shape.heads)))
        feed_forward.append(_interpolated(types[kind]["feed_forward"], shape.neurons))
    # Around the layers: embeddings and pooler. Between them: what a layer costs even without heads and neurons.
    around = statistics.mean(each["around_ms"] for each in types.values())
    fixed = max(0.0, around) + sum(types[kind]["between_ms"] for kind in own)
    return CostTable(attention, feed_forward, fixed, "ms")


def _interpolated(measured: dict[str, list[float]], units: int) -> Floats:
    """Interpolate linearly between the measured sizes, [units + 1]."""
    return np.interp(np.arange(units + 1), measured["units"], measured["ms"])


def _key(model: PreTrainedModel, call: TimedCall, target: LatencyTarget, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Collect everything that a time depends on."""
    config = model.config
    scalars = {name: value for name, value in config.to_dict().items() if isinstance(value, int | float | str)}
    geometry = {name: value for name, value in scalars.items() if name not in (*UNTIMED_KEYS, depth_key(config))}
    in_torch = target.runtime == "torch"
    return {
        "format": FORMAT,
        "runtime": target.runtime,
        # Exports are traced by torch, so that its version and that of Transformers decide what graph is timed.
        "versions": {name: machine["versions"][name] for name in ("torch", *(() if in_torch else ("transformers",)))}
        | {name: version_of(name) for name in PACKAGES[target.runtime]},
        "cpu": machine["cpu"]["model"],
        "flags": list(machine["cpu"]["flags"]),
        "gpu": machine["gpu"] if in_torch and model.device.type == "cuda" else None,
        "device": str(model.device) if in_torch else "cpu",
        "precision": str(model.dtype) if in_torch else target.precision,
        "threads": call.threads,
        "batch_size": call.batch_size,
        "tokens": call.tokens,
        "geometry": geometry,
        "attention": config._attn_implementation,
        "layers": {kind: [layer.heads, layer.neurons] for kind, layer in largest_layers(config).items()},
    }


def _stored(folder: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Read a table, or let one process measure and store it; a damaged one is measured again."""
    table = _read(folder)
    if table is None:
        if is_main_process():
            shutil.rmtree(folder, ignore_errors=True)  # `built_once` leaves a folder that exists as it is
        built_once(folder, lambda target: write_json(target / TABLE, measure()))
        table = _read(folder)
    assert table is not None
    return table


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
        sizes = [each[part] for each in table["types"].values() for part in ("attention", "feed_forward")]
        sound = bool(sizes) and all(len(each["units"]) == len(each["ms"]) > 0 for each in sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(table) if sound else None


def _measure(
    model: PreTrainedModel, call: TimedCall, target: LatencyTarget, *, rounds: tuple[int, int], progress: bool
) -> dict[str, Any]:
    """Time every size of a layer, for each attention type: milliseconds above those of an empty layer."""
    with ExitStack() as stack:
        if target.runtime == "torch":
            where = f"{model.device}, {call.threads} threads"
            runs = stack.enter_context(eager_layers(model, timed_sizes(model.config, EAGER_LEVELS), call))
            calls_at_once = 1
        else:
            where = f"{target.runtime} {target.precision}, {call.threads} streams of one thread"
            sizes, calls_at_once = timed_sizes(model.config, EXPORTED_LEVELS), call.threads
            logger.info("latency: exporting %d sizes of a layer to %s", len(sizes), target.runtime)
            runs = stack.enter_context(exported_layers(model.config, sizes, call, target, progress=progress))
        where = f"{where}, {call.batch_size} × {call.tokens} tokens"
        seconds = _medians(runs, where, rounds=rounds, progress=progress)
    milliseconds = {size: 1000 * each / calls_at_once for size, each in seconds.items()}
    return {kind: _table(milliseconds, kind) for kind in largest_layers(model.config)}


def _table(milliseconds: Mapping[Size, float], kind: str) -> dict[str, Any]:
    """Subtract the empty layer's time, and remove noise: with more units a layer never gets faster."""
    empty, twice = milliseconds[kind, "empty", 1], milliseconds[kind, "empty", 2]
    between = max(0.0, twice - empty)
    table: dict[str, Any] = {"around_ms": max(0.0, empty - between), "between_ms": between}
    for part in ("attention", "feed_forward"):
        units = [count for own, name, count in milliseconds if (own, name) == (kind, part)]
        above = [milliseconds[kind, part, count] - empty for count in units]
        rising = isotonic_regression(above, y_min=0.0) if units else []
        table[part] = {"units": [0, *units], "ms": [0.0, *(float(each) for each in rising)]}
    return table


def _medians(runs: Mapping[Size, Run], where: str, *, rounds: tuple[int, int], progress: bool) -> dict[Size, float]:
    """Time all runs in turns; return medians in seconds."""
    named = {str(size): run for size, run in runs.items()}
    # The first call of a shape allocates memory and chooses kernels; `take_turns` makes one that it does not time.
    one_round = sum(seconds for (seconds,) in take_turns(named, 1).values())
    count = int(np.clip(TARGET_SECONDS / one_round, *rounds))
    logger.info("latency: timing %d sizes of a layer on %s, about %.0f s", len(runs), where, count * one_round)
    with bar("measuring latency", (count + 1) * len(runs), progress) as shown:
        calls = itertools.count(1)

        def counted(run: Run) -> None:
            run()
            shown(next(calls))  # microseconds, and the same for every size

        times = take_turns({name: partial(counted, run) for name, run in named.items()}, count)
    return {size: statistics.median(times[str(size)]) for size in runs}
