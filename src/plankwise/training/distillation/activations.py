"""Records what single layers of a network computed in its last forward pass: hidden states, queries, keys and values.

Forward hooks do this, so it works with any attention kernel and changes no model code. Queries and keys are recorded
before rotary or relative positions are applied, which belong to the attention and not to the projections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from plankwise.encoder.anatomy import hidden_of, query_key_value_of


class ActivationRecorder:
    """Keeps the activations of some layers of a network until its next forward pass.

    Args:
        network: the network to record.
        layers: of which some are recorded; those of the network, or those of a smaller model inside it.
        hidden_at: numbers of the layers to record hidden states of.
        attention_at: number of the layer to record queries, keys and values of, if any.
    """

    def __init__(
        self, network: PreTrainedModel, layers: Sequence[nn.Module], hidden_at: Iterable[int], attention_at: int | None
    ) -> None:
        self._network, self._layers = network, list(layers)
        self._outputs = {index: layers[index] for index in set(hidden_at)}
        self._projections = [] if attention_at is None else query_key_value_of(network, layers[attention_at])
        self._recorded: dict[Any, Tensor] = {}

    @contextmanager
    def on(self) -> Iterator[ActivationRecorder]:
        """Record while the context lasts."""
        handles = [self._network.register_forward_pre_hook(self._clear)]
        for index, layer in self._outputs.items():
            handles.append(layer.register_forward_hook(partial(self._record, ("hidden", index))))
        for linear in {linear for linear, _, _ in self._projections}:
            handles.append(linear.register_forward_hook(partial(self._record, linear)))
        # Whether all layers ran matters to relations alone.
        for index, layer in enumerate(self._layers if self._projections else ()):
            handles.append(layer.register_forward_hook(partial(self._record, ("ran", index))))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self._recorded.clear()

    def widths(self) -> list[int]:
        """Return the widths of queries, keys and values; empty if the layer has lost all its heads."""
        return [linear.out_features // parts for linear, _, parts in self._projections]

    def has_hidden(self, layer: int) -> bool:
        """Return whether a layer that is recorded ran: in a step of module replacing, some layers do not."""
        return ("hidden", layer) in self._recorded

    def has_query_key_value(self) -> bool:
        """Return whether every layer ran, and with it the one with recorded queries, keys and values.

        Relations of a layer follow from its input. In a step of module replacing in which a layer of the predecessor
        runs, that input is not the one that the layer will have in the model that is made.
        """
        return all(("ran", index) in self._recorded for index in range(len(self._layers)))

    def hidden(self, layer: int) -> Tensor:
        """Return the hidden states, [batch, tokens, width], of a layer that ran."""
        return self._recorded["hidden", layer]

    def query_key_value(self) -> tuple[Tensor, ...]:
        """Return queries, keys and values, [batch, tokens, width] each, of the layer, which ran."""
        # Fused projections are cut into their parts.
        return tuple(self._recorded[linear].chunk(parts, dim=-1)[part] for linear, part, parts in self._projections)

    def _clear(self, *_: Any) -> None:
        self._recorded.clear()

    def _record(self, key: Any, module: nn.Module, inputs: Any, output: Any) -> None:
        # The first call counts: DeBERTa-v2 projects its table of positions with the same weights after the tokens.
        self._recorded.setdefault(key, hidden_of(output))


def add_to_outputs(network: PreTrainedModel, tensors: Callable[[], Iterable[Tensor | None]]) -> RemovableHandle:
    """Make the outputs of a network carry the result of `tensors()` as `hidden_states`, if gradients are recorded.

    The loss reads them from there: `DistributedDataParallel` waits for gradients of nothing but the outputs.
    """

    def add(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        if torch.is_grad_enabled():
            outputs["hidden_states"] = tuple(tensors())
        return outputs

    handle: RemovableHandle = network.register_forward_hook(add)
    return handle
