"""The cost of each number of heads and neurons in milliseconds, measured on this machine.

FLOPs say little about time where matrices get small; ZipLM (Kurtic, Frantar, Alistarh 2023, arXiv 2302.04089) therefore
prunes by a table of measured times. A layer is timed inside the real encoder, which for this runs that one layer only:
with some heads and no neurons, with no heads and some neurons, and with neither, whose time is subtracted. All sizes
take turns in every round, so that a machine that slows down does so for all of them; the time of a size is the median.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import logging
import shutil
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.isotonic import isotonic_regression
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.core.cache import built_once, cache_folder
from plankwise.core.distributed import agree, is_main_process
from plankwise.core.errors import MethodError
from plankwise.core.files import write_json
from plankwise.core.hardware import environment, fixed_threads
from plankwise.core.progress import bar
from plankwise.core.seeds import mix_seed
from plankwise.core.timing import Run, take_turns
from plankwise.encoder.anatomy import layer_types, layers_of, set_layers
from plankwise.encoder.configuration import depth_key, usable_positions
from plankwise.encoder.shapes import cut_layer, shapes_of
from plankwise.encoder.surgery import frozen_twin
from plankwise.methods.cost_table import CostTable, Floats

logger = logging.getLogger(__name__)
FORMAT = 1  # of the stored table; a table of another format is measured again
TABLE = "table.json"
NEURON_LEVELS = 12  # numbers of neurons that are measured; others are interpolated
MAX_HEAD_LEVELS = 16  # layers with at most this many heads are measured at every number of them
ROUNDS = (5, 30)  # fewest and most
TARGET_SECONDS = 20.0  # duration of a measurement, within these rounds
UNTIMED_KEYS = ("_name_or_path", "transformers_version", "problem_type")  # of a configuration: no influence on time


@dataclass(frozen=True)
class _Call:
    """The call that is timed."""

    batch_size: int
    tokens: int
    threads: int


@dataclass(frozen=True)
class _Largest:
    """The largest sizes among the layers of one attention type, and the index of a layer that has each."""

    heads: int
    neurons: int
    head_layer: int
    neuron_layer: int


_Size = tuple[str, str, int]  # attention type; "attention", "feed_forward" or "empty"; heads, neurons or layers


def latency_costs(
    model: PreTrainedModel,
    *,
    batch_size: int = 8,
    tokens: int = 128,
    threads: int | None = None,
    cache: Path | None = None,
    progress: bool = False,
    rounds: tuple[int, int] = ROUNDS,
    machine: Callable[[], Mapping[str, Any]] = environment,
) -> CostTable:
    """Measure the cost of heads and neurons in milliseconds of one call, in torch eager, on this machine and device.

    Each combination of architecture, sizes, machine, device, number of threads and shape of the call is measured once
    and stored. The fixed cost is that of the encoder's embeddings, norms and pooler; a task's head is not part of it.

    Args:
        model: on the device and in the precision to measure; it is not changed.
        batch_size: texts in the call.
        tokens: in each text.
        threads: of torch, on a CPU; `None` takes the current number.
        cache: folder of stored measurements; the user's cache by default.
        progress: whether to show a progress bar.
        rounds: the fewest and the most; between them the measurement takes about 20 seconds.
        machine: describes this machine, as `environment` does.

    Raises:
        MethodError: if the model has fewer positions than `tokens`.
        OutputError: if the cache cannot be written to.
    """
    positions = usable_positions(model.config)
    if tokens > positions:
        raise MethodError(f"cannot measure at {tokens} tokens: the model has {positions} positions")
    with fixed_threads(threads) as used:
        call = _Call(batch_size, tokens, used)
        key = _key(model, call, machine())
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        folder = (cache_folder() / "latency" if cache is None else cache) / name
        table = _stored(folder, lambda: {"measured_on": key, "types": _measure(model, call, rounds, progress)})
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


def _key(model: PreTrainedModel, call: _Call, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Collect everything that a time depends on."""
    config = model.config
    scalars = {name: value for name, value in config.to_dict().items() if isinstance(value, int | float | str)}
    geometry = {name: value for name, value in scalars.items() if name not in (*UNTIMED_KEYS, depth_key(config))}
    return {
        "format": FORMAT,
        "torch": machine["versions"]["torch"],
        "cpu": machine["cpu"]["model"],
        "gpu": machine["gpu"] if model.device.type == "cuda" else None,
        "device": str(model.device),
        "precision": str(model.dtype),
        "threads": call.threads,
        "batch_size": call.batch_size,
        "tokens": call.tokens,
        "geometry": geometry,
        "attention": config._attn_implementation,
        "layers": {kind: [layer.heads, layer.neurons] for kind, layer in _largest(model).items()},
    }


def _largest(model: PreTrainedModel) -> dict[str, _Largest]:
    shapes, types = shapes_of(model.config), layer_types(model.config)
    found = {}
    for kind in sorted(set(types)):
        own = [index for index, each in enumerate(types) if each == kind]
        head_layer = max(own, key=lambda index: len(shapes[index].heads))
        neuron_layer = max(own, key=lambda index: shapes[index].neurons)
        found[kind] = _Largest(len(shapes[head_layer].heads), shapes[neuron_layer].neurons, head_layer, neuron_layer)
    return found


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


def _measure(model: PreTrainedModel, call: _Call, rounds: tuple[int, int], progress: bool) -> dict[str, Any]:
    """Time every size of a layer, for each attention type: milliseconds above those of an empty layer."""
    stacks: dict[_Size, nn.ModuleList] = {}
    for kind, largest in _largest(model).items():
        # One and two empty layers: their difference is the cost of a layer without units, norms and residuals included.
        empty = _cut(model, largest.head_layer, heads=0, neurons=0)
        stacks[kind, "empty", 1], stacks[kind, "empty", 2] = nn.ModuleList([empty]), nn.ModuleList([empty, empty])
        for count in _levels(largest.heads, MAX_HEAD_LEVELS):
            stacks[kind, "attention", count] = nn.ModuleList([_cut(model, largest.head_layer, heads=count, neurons=0)])
        for count in _levels(largest.neurons, NEURON_LEVELS):
            cut = _cut(model, largest.neuron_layer, heads=0, neurons=count)
            stacks[kind, "feed_forward", count] = nn.ModuleList([cut])
    milliseconds = _median_ms(model, stacks, call, rounds=rounds, progress=progress)
    return {kind: _table(milliseconds, kind) for kind in _largest(model)}


def _table(milliseconds: Mapping[_Size, float], kind: str) -> dict[str, Any]:
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


def _levels(units: int, max_levels: int) -> list[int]:
    """Return up to `max_levels` numbers of units, evenly spaced; the last is `units`."""
    return sorted({round(each) for each in np.linspace(0, units, min(units, max_levels) + 1)} - {0})


def _cut(model: PreTrainedModel, index: int, *, heads: int, neurons: int) -> nn.Module:
    """Copy one layer with its first heads and neurons only."""
    layer = copy.deepcopy(layers_of(model)[index])
    cut_layer(model, layer, range(heads), range(neurons))
    return layer.eval()


@torch.inference_mode()
def _median_ms(
    model: PreTrainedModel,
    stacks: Mapping[_Size, nn.ModuleList],
    call: _Call,
    *,
    rounds: tuple[int, int],
    progress: bool,
) -> dict[_Size, float]:
    """Time a call of the encoder with each stack of layers; return medians in milliseconds."""
    encoder, batch = frozen_twin(model.base_model).eval(), _batch(model, call)

    def run(stack: nn.ModuleList) -> None:
        set_layers(encoder, stack)
        encoder(**batch)
        if encoder.device.type == "cuda":
            torch.cuda.synchronize(encoder.device)  # kernels run asynchronously

    runs: dict[str, Run] = {str(size): partial(run, stack) for size, stack in stacks.items()}
    # The first call of a shape allocates memory and chooses kernels; `take_turns` makes one that it does not time.
    one_round = sum(seconds for (seconds,) in take_turns(runs, 1).values())
    count = int(np.clip(TARGET_SECONDS / one_round, *rounds))
    where = f"{model.device}, {call.threads} threads, {call.batch_size} × {call.tokens} tokens"
    logger.info("latency: timing %d sizes of a layer on %s, about %.0f s", len(runs), where, count * one_round)
    with bar("measuring latency", (count + 1) * len(runs), progress) as shown:
        calls = itertools.count(1)

        def counted(run: Run) -> None:
            run()
            shown(next(calls))  # microseconds, and the same for every size

        times = take_turns({name: partial(counted, run) for name, run in runs.items()}, count)
    return {size: 1000 * statistics.median(times[str(size)]) for size in stacks}


def _batch(model: PreTrainedModel, call: _Call) -> dict[str, Tensor]:
    words = int(model.config.vocab_size)
    generator = torch.Generator().manual_seed(mix_seed("latency"))
    # From 5 on, as lower ids are often special tokens: RoBERTa counts positions from the padding id.
    ids = torch.randint(min(5, words - 1), words, (call.batch_size, call.tokens), generator=generator)
    return {"input_ids": ids.to(model.device), "attention_mask": torch.ones_like(ids).to(model.device)}
