"""Records what single layers of a network computed in its last forward pass: hidden states, queries, keys and values.

Forward hooks do this, so it works with any attention kernel and changes no model code. Queries and keys are recorded
before rotary or relative positions are applied, which belong to the attention and not to the projections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from plankwise.encoder.anatomy import hidden_of, layers_of, query_key_value_of


@dataclass(frozen=True)
class Depth:
    """Where the activations at one depth of a network are recorded.

    Attributes:
        output: the module with the hidden states of this depth as its output.
        attention_layers: layers of which one attends at this depth; if several ran, the last of them counts.
    """

    output: nn.Module
    attention_layers: tuple[nn.Module, ...]


def depths_of(model: PreTrainedModel) -> list[Depth]:
    """Return the depths of a plain model: its layers."""
    return [Depth(layer, (layer,)) for layer in layers_of(model)]


class ActivationRecorder:
    """Keeps the activations at some depths of a network until its next forward pass.

    Args:
        network: the network to record.
        depths: its depths.
        hidden_at: numbers of the depths to record hidden states at.
        attention_at: number of the depth to record queries, keys and values at, if any.
    """

    def __init__(
        self, network: PreTrainedModel, depths: Sequence[Depth], hidden_at: Iterable[int], attention_at: int | None
    ) -> None:
        self._network = network
        self._outputs = {depth: depths[depth].output for depth in set(hidden_at)}
        layers = () if attention_at is None else depths[attention_at].attention_layers
        self._projections = [query_key_value_of(network, layer) for layer in layers]
        self._recorded: dict[Any, Tensor] = {}

    @contextmanager
    def on(self) -> Iterator[ActivationRecorder]:
        """Record while the context lasts."""
        handles = [self._network.register_forward_pre_hook(self._clear)]
        for depth, module in self._outputs.items():
            handles.append(module.register_forward_hook(partial(self._record, ("hidden", depth))))
        for linear in {linear for layer in self._projections for linear, _, _ in layer}:
            handles.append(linear.register_forward_hook(partial(self._record, linear)))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self._recorded.clear()

    def widths(self) -> list[int]:
        """Return every width that queries, keys and values may have; empty if a layer has lost all its heads."""
        if not all(self._projections):
            return []
        return [linear.out_features // parts for layer in self._projections for linear, _, parts in layer]

    def hidden(self, depth: int) -> Tensor:
        """Return the hidden states, [batch, tokens, width], of a depth."""
        return self._recorded["hidden", depth]

    def query_key_value(self) -> tuple[Tensor, ...]:
        """Return queries, keys and values, [batch, tokens, width] each, of the layer that ran."""
        ran = [layer for layer in self._projections if all(linear in self._recorded for linear, _, _ in layer)]
        # Several layers run where a step of Theseus blends two branches; fused projections are cut into their parts.
        return tuple(self._recorded[linear].chunk(parts, dim=-1)[part] for linear, part, parts in ran[-1])

    def _clear(self, *_: Any) -> None:
        self._recorded.clear()

    def _record(self, key: Any, module: nn.Module, inputs: Any, output: Any) -> None:
        # The first call counts: DeBERTa-v2 projects its table of positions with the same weights after the tokens.
        self._recorded.setdefault(key, hidden_of(output))


def add_to_outputs(network: PreTrainedModel, tensors: Callable[[], Iterable[Tensor]]) -> RemovableHandle:
    """Make the outputs of a network carry the result of `tensors()` as `hidden_states`, if gradients are recorded.

    The loss reads them from there: `DistributedDataParallel` waits for gradients of nothing but the outputs.
    """

    def add(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        if torch.is_grad_enabled():
            outputs["hidden_states"] = tuple(tensors())
        return outputs

    handle: RemovableHandle = network.register_forward_hook(add)
    return handle
