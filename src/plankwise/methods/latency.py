"""What each number of heads and neurons costs in time, measured on this machine.

FLOPs say little about time where matrices get small; ZipLM (Kurtic, Frantar, Alistarh 2023, arXiv 2302.04089) therefore
prunes by a table of measured times. A layer is timed inside the real encoder, which for that runs this one layer only:
with some heads and no neurons, with no heads and some neurons, and with neither, whose time is subtracted. All these
take turns in every round, so that a machine that slows down does so for all of them, and a level's time is the median.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from plankwise.encoder.anatomy import layer_types, layers_of, set_layers
from plankwise.encoder.configuration import depth_key, usable_positions
from plankwise.encoder.shapes import cut_layer, shapes_of
from plankwise.encoder.surgery import frozen_twin
from plankwise.methods.cost_table import CostTable, Floats

logger = logging.getLogger(__name__)
FORMAT = 1  # of the table; a higher one measures anew
TABLE = "table.json"
NEURON_LEVELS = 12
LARGEST_HEADS = 16  # up to here every number of heads is measured, beyond it so many levels
ROUNDS = (5, 30)
SECONDS = 20.0  # a measurement takes about as long, within these rounds
_NO_MATTER = ("_name_or_path", "transformers_version", "problem_type")  # to time


@dataclass(frozen=True)
class _Call:
    """What is timed: a batch of so many texts of so many tokens, by so many threads."""

    batch_size: int
    tokens: int
    threads: int


def latency_costs(
    model: PreTrainedModel,
    batch_size: int = 8,
    tokens: int = 128,
    threads: int | None = None,
    cache: Path | None = None,
    progress: bool = False,
) -> CostTable:
    """Measure what heads and neurons cost in milliseconds of one call, torch eager, on this machine and device.

    A measurement is made once for an architecture, geometry, machine, device, number of threads and shape of the call,
    and kept. What is fixed is the encoder's embeddings, norms and pooler; a task's head is not in it.

    Args:
        model: on the device and in the precision that are to be measured; it is left as it is.
        batch_size: texts in the call.
        tokens: in each text.
        threads: of torch, on a CPU; null takes those in use.
        cache: folder that keeps measurements; that of the user by default.
        progress: whether to show a progress bar.

    Raises:
        MethodError: if the model has fewer positions than tokens are asked for.
        OutputError: if the cache cannot be written to.
    """
    positions = usable_positions(model.config)
    if tokens > positions:
        raise MethodError(f"cannot measure at {tokens} tokens: the model has {positions} positions")
    with fixed_threads(threads) as used:
        call = _Call(batch_size, tokens, used)
        key = _key(model, call)
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        folder = (cache_folder() / "latency" if cache is None else cache) / name
        table = _stored(folder, lambda: {"measured_on": key, "types": _measure(model, call, progress)})
    agree(json.dumps(table, sort_keys=True), "the measured latencies")
    return _costs(model, table["types"])


def _costs(model: PreTrainedModel, types: dict[str, Any]) -> CostTable:
    own = layer_types(model.config)
    attention, feed_forward = [], []
    for kind, shape in zip(own, shapes_of(model.config), strict=True):
        attention.append(_spread(types[kind]["attention"], len(shape.heads)))
        feed_forward.append(_spread(types[kind]["feed_forward"], shape.neurons))
    around = statistics.mean(each["around_ms"] for each in types.values())
    fixed = max(0.0, around) + sum(types[kind]["between_ms"] for kind in own)
    return CostTable(attention, feed_forward, fixed, "ms")


def _spread(measured: dict[str, list[float]], units: int) -> Floats:
    """Interpolate between the sizes measured, [units + 1]."""
    return np.interp(np.arange(units + 1), measured["units"], measured["ms"])


def _key(model: PreTrainedModel, call: _Call) -> dict[str, Any]:
    """Collect everything that a time depends on."""
    config, described = model.config, environment()
    scalars = {name: value for name, value in config.to_dict().items() if isinstance(value, int | float | str)}
    geometry = {name: value for name, value in scalars.items() if name not in (*_NO_MATTER, depth_key(config))}
    return {
        "format": FORMAT,
        "torch": described["versions"]["torch"],
        "cpu": described["cpu"]["model"],
        "gpu": described["gpu"] if model.device.type == "cuda" else None,
        "device": str(model.device),
        "precision": str(model.dtype),
        "threads": call.threads,
        "batch_size": call.batch_size,
        "tokens": call.tokens,
        "geometry": geometry,
        "attention": config._attn_implementation,
        "layers": {kind: [layer.heads, layer.neurons] for kind, layer in _largest(model).items()},
    }


@dataclass(frozen=True)
class _Largest:
    """The most heads and neurons that a layer of one attention type has, and which layers have them."""

    heads: int
    neurons: int
    most_heads: int
    most_neurons: int


def _largest(model: PreTrainedModel) -> dict[str, _Largest]:
    shapes, types = shapes_of(model.config), layer_types(model.config)
    found = {}
    for kind in sorted(set(types)):
        own = [index for index, each in enumerate(types) if each == kind]
        most_heads = max(own, key=lambda index: len(shapes[index].heads))
        most_neurons = max(own, key=lambda index: shapes[index].neurons)
        found[kind] = _Largest(len(shapes[most_heads].heads), shapes[most_neurons].neurons, most_heads, most_neurons)
    return found


def _stored(folder: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Read a table, or let one process measure and write it; one that is damaged is measured anew."""
    table = _read(folder)
    if table is None:
        if is_main_process():
            shutil.rmtree(folder, ignore_errors=True)
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


def _measure(model: PreTrainedModel, call: _Call, progress: bool) -> dict[str, Any]:
    """Time every size of a layer, for each attention type: milliseconds above those of an empty layer."""
    runs: dict[tuple[str, str, int], nn.ModuleList] = {}
    for kind, largest in _largest(model).items():
        empty = _cut(model, largest.most_heads, 0, 0)
        runs[kind, "empty", 1], runs[kind, "empty", 2] = nn.ModuleList([empty]), nn.ModuleList([empty, empty])
        for count in _levels(largest.heads, LARGEST_HEADS):
            runs[kind, "attention", count] = nn.ModuleList([_cut(model, largest.most_heads, count, 0)])
        for count in _levels(largest.neurons, NEURON_LEVELS):
            runs[kind, "feed_forward", count] = nn.ModuleList([_cut(model, largest.most_neurons, 0, count)])
    times = _take_turns(model, list(runs.values()), call, progress)
    milliseconds = dict(zip(runs, times, strict=True))
    return {kind: _table(milliseconds, kind) for kind in _largest(model)}


def _table(milliseconds: dict[tuple[str, str, int], float], kind: str) -> dict[str, Any]:
    empty, twice = milliseconds[kind, "empty", 1], milliseconds[kind, "empty", 2]
    between = max(0.0, twice - empty)
    table: dict[str, Any] = {"around_ms": max(0.0, empty - between), "between_ms": between}
    for part in ("attention", "feed_forward"):
        units = [count for own, name, count in milliseconds if (own, name) == (kind, part)]
        above = [milliseconds[kind, part, count] - empty for count in units]
        rising = isotonic_regression(above, y_min=0.0) if units else []
        table[part] = {"units": [0, *units], "ms": [0.0, *(float(each) for each in rising)]}
    return table


def _levels(units: int, most: int) -> list[int]:
    """List at most `most` numbers of units to measure, evenly spread, the last of them all."""
    return sorted({round(each) for each in np.linspace(0, units, min(units, most) + 1)} - {0})


def _cut(model: PreTrainedModel, index: int, heads: int, neurons: int) -> nn.Module:
    """Copy one layer with its first heads and neurons only."""
    layer = copy.deepcopy(layers_of(model)[index])
    cut_layer(model, layer, range(heads), range(neurons))
    return layer.eval()


def _take_turns(model: PreTrainedModel, stacks: Sequence[nn.ModuleList], call: _Call, progress: bool) -> list[float]:
    """Run the encoder with each stack of layers, in rounds of alternating order; give median milliseconds."""
    encoder = frozen_twin(model.base_model).eval()
    batch = _batch(model, call)
    with torch.inference_mode():
        for _ in range(2):  # the first run of a shape allocates and chooses kernels
            one_round = sum(_seconds(encoder, stack, batch) for stack in stacks)
        rounds = int(np.clip(SECONDS / one_round, *ROUNDS))
        where = f"{model.device}, {call.threads} threads, {call.batch_size} × {call.tokens} tokens"
        logger.info("latency: timing %d sizes of a layer on %s, about %.0f s", len(stacks), where, rounds * one_round)
        seconds: list[list[float]] = [[] for _ in stacks]
        with bar("measuring latency", rounds, progress) as done:
            for number in range(rounds):
                order = range(len(stacks)) if number % 2 == 0 else reversed(range(len(stacks)))
                for index in order:
                    seconds[index].append(_seconds(encoder, stacks[index], batch))
                done(number + 1)
    return [1000 * statistics.median(each) for each in seconds]


def _seconds(encoder: PreTrainedModel, stack: nn.ModuleList, batch: dict[str, Tensor]) -> float:
    set_layers(encoder, stack)
    _finish(encoder)
    start = time.perf_counter()
    encoder(**batch)
    _finish(encoder)
    return time.perf_counter() - start


def _finish(encoder: PreTrainedModel) -> None:
    if encoder.device.type == "cuda":
        torch.cuda.synchronize(encoder.device)


def _batch(model: PreTrainedModel, call: _Call) -> dict[str, Tensor]:
    words = int(model.config.vocab_size)
    generator = torch.Generator().manual_seed(mix_seed("latency"))
    ids = torch.randint(min(5, words - 1), words, (call.batch_size, call.tokens), generator=generator)
    return {"input_ids": ids.to(model.device), "attention_mask": torch.ones_like(ids).to(model.device)}
