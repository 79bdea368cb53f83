"""Gates on heads and neurons: factors on their contributions to the residual outputs of their layer.

A gate of 0 has the effect of removing the head or neuron. Gates measure importance, learn masks, and test that slicing
equals masking.
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
        heads: a factor for each head, [heads], or for each text and head, [batch, heads]. Heads that share keys and
            values have one factor for the group.
        neurons: the same for neurons, [neurons] or [batch, neurons].
    """

    heads: Tensor
    neurons: Tensor


@contextmanager
def gated(model: PreTrainedModel, gates: Sequence[LayerGates]) -> Iterator[None]:
    """Apply gates to every layer of `model` while the context lasts; they may change or require gradients."""
    with ExitStack() as stack:
        for layer, gate in zip(layers_of(model), gates, strict=True):
            for projection, factors in zip(residual_outputs_of(model, layer), (gate.heads, gate.neurons), strict=True):
                stack.callback(_gate_input(projection, partial(_same, factors)))
        yield


@contextmanager
def gated_per_call(model: PreTrainedModel, draw: Callable[[], Sequence[LayerGates]]) -> Iterator[None]:
    """Apply gates that `draw` returns at each call of the encoder, while the context lasts."""
    drawn: list[LayerGates] = []

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        drawn[:] = draw()  # in place, as the hooks below hold this list

    with ExitStack() as stack:
        stack.callback(model.base_model.register_forward_pre_hook(begin).remove)
        for index, layer in enumerate(layers_of(model)):
            attention, feed_forward = residual_outputs_of(model, layer)
            stack.callback(_gate_input(attention, partial(_drawn, drawn, index, "heads")))
            stack.callback(_gate_input(feed_forward, partial(_drawn, drawn, index, "neurons")))
        yield


def fold(model: PreTrainedModel, gates: Sequence[LayerGates]) -> None:
    """Multiply gates into the columns of both residual outputs of every layer, in place, so that none is needed."""
    with torch.no_grad():
        for layer, gate in zip(layers_of(model), gates, strict=True):
            for projection, factors in zip(residual_outputs_of(model, layer), (gate.heads, gate.neurons), strict=True):
                projection.weight.copy_(_apply(projection.weight, factors.to(projection.weight.device)))


def _same(factors: Tensor) -> Tensor:
    return factors


def _drawn(drawn: Sequence[LayerGates], index: int, part: Literal["heads", "neurons"]) -> Tensor:
    factors: Tensor = getattr(drawn[index], part)
    return factors


def _gate_input(projection: nn.Linear, factors: Callable[[], Tensor]) -> Callable[[], None]:
    """Gate the input of a projection and return the function that ends it."""

    def multiply(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_apply(inputs[0], factors()), *inputs[1:])

    return projection.register_forward_pre_hook(multiply).remove


def _apply(values: Tensor, factors: Tensor) -> Tensor:
    """Multiply units of `values`, […, units · width], by their factors, [units] or for each text, [batch, units]."""
    units = factors.shape[-1]
    if units == 0:  # reshape could not infer the width
        return values
    spread = factors if factors.dim() == 1 else factors[:, None]  # the same for every token of a text
    shaped = values.reshape(*values.shape[:-1], units, -1) * spread[..., None].to(values.dtype)
    return shaped.reshape(values.shape)
