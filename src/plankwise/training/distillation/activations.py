"""What single layers of a network gave in its last forward pass: hidden states, queries, keys and values.

Taken by hooks, so that it works with any attention kernel and changes no model code. Queries and keys are those before
rotary or relative positions, which are the attention's own and no part of the projections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.encoder.anatomy import hidden_of, layers_of, query_key_value_of


@dataclass(frozen=True)
class Depth:
    """Where one depth of a network is heard.

    Attributes:
        output: the module whose output holds the hidden states.
        attending: layers of which one attends at this depth; where several ran, the last of them counts.
    """

    output: nn.Module
    attending: tuple[nn.Module, ...]


def depths_of(model: PreTrainedModel) -> list[Depth]:
    """Give the depths of a plain model: its layers."""
    return [Depth(layer, (layer,)) for layer in layers_of(model)]


class ActivationRecorder:
    """Keeps what a network gave at some depths, from one forward pass to the next."""

    def __init__(
        self, network: PreTrainedModel, depths: Sequence[Depth], hidden_at: Iterable[int], attention_at: int | None
    ) -> None:
        self._network = network
        self._outputs = {depth: depths[depth].output for depth in set(hidden_at)}
        attending = () if attention_at is None else depths[attention_at].attending
        self._projections = [query_key_value_of(network, layer) for layer in attending]
        self._heard: dict[Any, Tensor] = {}

    @contextmanager
    def on(self) -> Iterator[ActivationRecorder]:
        """Listen while the context lasts."""
        handles = [self._network.register_forward_pre_hook(self._forget)]
        for depth, module in self._outputs.items():
            handles.append(module.register_forward_hook(partial(self._keep, ("hidden", depth))))
        for linear in {linear for layer in self._projections for linear, _, _ in layer}:
            handles.append(linear.register_forward_hook(partial(self._keep, linear)))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self._heard.clear()

    def widths(self) -> list[int]:
        """Give every width that queries, keys and values may have; empty where a layer has lost its heads."""
        if not all(self._projections):
            return []
        return [linear.out_features // parts for layer in self._projections for linear, _, parts in layer]

    def hidden(self, depth: int) -> Tensor:
        """Give the hidden states, [batch, tokens, width], of a depth."""
        return self._heard["hidden", depth]

    def query_key_value(self) -> tuple[Tensor, ...]:
        """Give queries, keys and values, [batch, tokens, width] each, of the layer that attended."""
        ran = [layer for layer in self._projections if all(linear in self._heard for linear, _, _ in layer)]
        return tuple(self._heard[linear].chunk(parts, dim=-1)[part] for linear, part, parts in ran[-1])

    def _forget(self, *_: Any) -> None:
        self._heard.clear()

    def _keep(self, key: Any, module: nn.Module, inputs: Any, output: Any) -> None:
        # The first call counts: DeBERTa-v2 projects its table of positions by the same weights after the tokens.
        self._heard.setdefault(key, hidden_of(output))


def deliver_with_outputs(network: PreTrainedModel, give: Any) -> Any:
    """Let a network's outputs carry the tensors of `give()` as `hidden_states` wherever gradients are recorded.

    What a loss reads has to be among the outputs: `DistributedDataParallel` waits for the gradients of no other.
    """

    def add(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        if torch.is_grad_enabled():
            outputs["hidden_states"] = tuple(give())
        return outputs

    return network.register_forward_hook(add)
