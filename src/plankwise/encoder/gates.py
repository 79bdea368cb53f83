"""Gates on heads and neurons: factors on what they give to the residual outputs of their layer.

A gate of 0 is what cutting the head or neuron out would give, so gates serve to measure importance, to learn masks, and
to test that slicing equals masking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.encoder.anatomy import layers_of, residual_outputs_of


@dataclass(frozen=True)
class LayerGates:
    """The gates of one layer.

    Attributes:
        heads: a factor for each head, [heads], or for each text of the batch and head, [batch, heads]; groups of heads
            where they share keys and values.
        neurons: the same for neurons.
    """

    heads: Tensor
    neurons: Tensor


@contextmanager
def gated(model: PreTrainedModel, gates: Sequence[LayerGates]) -> Iterator[None]:
    """Apply gates to every layer of `model` while the context lasts; tensors may change or want gradients."""
    with ExitStack() as stack:
        for layer, gate in zip(layers_of(model), gates, strict=True):
            for projection, factors in zip(residual_outputs_of(model, layer), (gate.heads, gate.neurons), strict=True):
                stack.callback(_gate_input(projection, partial(_same, factors)))
        yield


@contextmanager
def gated_anew(model: PreTrainedModel, draw: Callable[[], Sequence[LayerGates]]) -> Iterator[None]:
    """Apply gates that `draw` gives anew whenever the encoder is called, while the context lasts."""
    drawn: list[LayerGates] = []

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        drawn[:] = draw()

    with ExitStack() as stack:
        stack.callback(model.base_model.register_forward_pre_hook(begin).remove)
        for index, layer in enumerate(layers_of(model)):
            attention, feed_forward = residual_outputs_of(model, layer)
            stack.callback(_gate_input(attention, partial(_drawn, drawn, index, "heads")))
            stack.callback(_gate_input(feed_forward, partial(_drawn, drawn, index, "neurons")))
        yield


def fold(model: PreTrainedModel, gates: Sequence[LayerGates]) -> None:
    """Multiply the columns of both residual outputs of every layer by gates, in place; no gate is needed then."""
    with torch.no_grad():
        for layer, gate in zip(layers_of(model), gates, strict=True):
            for projection, factors in zip(residual_outputs_of(model, layer), (gate.heads, gate.neurons), strict=True):
                projection.weight.copy_(_apply(projection.weight, factors.to(projection.weight.device)))


def _same(factors: Tensor) -> Tensor:
    return factors


def _drawn(drawn: Sequence[LayerGates], index: int, part: Literal["heads", "neurons"]) -> Tensor:
    factors: Tensor = getattr(drawn[index], part)
    return factors


def _gate_input(projection: nn.Linear, factors: Callable[[], Tensor]) -> Any:
    def multiply(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_apply(inputs[0], factors()), *inputs[1:])

    return projection.register_forward_pre_hook(multiply).remove


def _apply(values: Tensor, factors: Tensor) -> Tensor:
    """Multiply units of `values`, […, units · width], by their factors, [units] or one row a text, [batch, units]."""
    units = factors.shape[-1]
    if units == 0:
        return values
    spread = factors if factors.dim() == 1 else factors[:, None]  # the same for every token of a text
    shaped = values.reshape(*values.shape[:-1], units, -1) * spread[..., None].to(values.dtype)
    return shaped.reshape(values.shape)
