"""The sizes of a layer that are timed, the call that is timed, and the runtime that it is timed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from transformers import PreTrainedConfig

from plankwise.encoder.anatomy import layer_types
from plankwise.encoder.shapes import shapes_of

LatencyRuntime = Literal["torch", "openvino", "onnx"]
LatencyPrecision = Literal["fp32", "int8"]
Size = tuple[str, str, int]  # attention type; "attention", "feed_forward" or "empty"; heads, neurons or layers


@dataclass(frozen=True)
class LatencyTarget:
    """What the compressed model will run in.

    Attributes:
        runtime: torch eager, or a runtime that models are exported to.
        precision: of an exported model; torch runs a model in the precision it has.
    """

    runtime: LatencyRuntime = "torch"
    precision: LatencyPrecision = "fp32"


@dataclass(frozen=True)
class TimedCall:
    """The call that is timed: texts, tokens in each, and cores."""

    batch_size: int
    tokens: int
    threads: int


@dataclass(frozen=True)
class LargestLayer:
    """The largest sizes among the layers of one attention type, and the index of a layer that has each."""

    heads: int
    neurons: int
    head_layer: int
    neuron_layer: int


@dataclass(frozen=True)
class Levels:
    """The most numbers of heads and of neurons that are measured; times between them are interpolated."""

    heads: int
    neurons: int


# An exported size takes 2 to 4 seconds of converting and compiling on two cores, one in torch a few milliseconds.
EAGER_LEVELS, EXPORTED_LEVELS = Levels(heads=16, neurons=12), Levels(heads=6, neurons=6)


def largest_layers(config: PreTrainedConfig) -> dict[str, LargestLayer]:
    """Find the largest layers, by attention type."""
    shapes, types = shapes_of(config), layer_types(config)
    found = {}
    for kind in sorted(set(types)):
        own = [index for index, each in enumerate(types) if each == kind]
        heads = max(own, key=lambda index: len(shapes[index].heads))
        neurons = max(own, key=lambda index: shapes[index].neurons)
        found[kind] = LargestLayer(len(shapes[heads].heads), shapes[neurons].neurons, heads, neurons)
    return found


def timed_sizes(config: PreTrainedConfig, levels: Levels) -> list[Size]:
    """List the sizes to time.

    One and two empty layers are among them: their difference is the cost of a layer without units, norms and residuals
    included.
    """
    sizes: list[Size] = []
    for kind, largest in largest_layers(config).items():
        sizes += [(kind, "empty", count) for count in (1, 2)]
        sizes += [(kind, "attention", count) for count in spread(largest.heads, levels.heads)]
        sizes += [(kind, "feed_forward", count) for count in spread(largest.neurons, levels.neurons)]
    return sizes


def spread(units: int, most: int) -> Sequence[int]:
    """Return up to `most` numbers of units, evenly spaced; the last is `units`."""
    return sorted({round(each) for each in np.linspace(0, units, min(units, most) + 1)} - {0})
