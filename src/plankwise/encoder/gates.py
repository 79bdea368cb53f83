"""Gates on heads and neurons: factors on what they give to the residual outputs of their layer.

A gate of 0 is what cutting the head or neuron out would give, so gates serve to measure importance, to learn masks, and
to test that slicing equals masking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

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
                stack.callback(_gate_input(projection, factors))
        yield


def _gate_input(projection: nn.Linear, factors: Tensor) -> Any:
    def multiply(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_apply(inputs[0], factors), *inputs[1:])

    return projection.register_forward_pre_hook(multiply).remove


def _apply(values: Tensor, factors: Tensor) -> Tensor:
    """Multiply units of `values`, [batch, tokens, units · width], by their factors, [units] or [batch, units]."""
    units = factors.shape[-1]
    if units == 0:
        return values
    spread = factors if factors.dim() == 1 else factors[:, None]  # the same for every token of a text
    shaped = values.reshape(*values.shape[:-1], units, -1) * spread[..., None].to(values.dtype)
    return shaped.reshape(values.shape)
