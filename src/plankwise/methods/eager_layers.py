"""Layers of several sizes inside the real encoder in torch, to be timed on the device that it is on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.core.seeds import mix_seed
from plankwise.core.timing import Run
from plankwise.encoder.anatomy import layers_of, set_layers
from plankwise.encoder.shapes import cut_layer
from plankwise.encoder.surgery import frozen_twin
from plankwise.methods.layer_sizes import Size, TimedCall, largest_layers


@contextmanager
def eager_layers(model: PreTrainedModel, sizes: Sequence[Size], call: TimedCall) -> Iterator[Mapping[Size, Run]]:
    """Yield a call of the encoder for each size, in which its only layer has that size; `model` is not changed."""
    encoder, batch = frozen_twin(model.base_model).eval(), _batch(model, call)

    def run(stack: nn.ModuleList) -> None:
        set_layers(encoder, stack)
        encoder(**batch)
        if encoder.device.type == "cuda":
            torch.cuda.synchronize(encoder.device)  # kernels run asynchronously

    runs = {size: partial(run, _stack(model, size)) for size in sizes}
    with torch.inference_mode():
        yield runs


def _stack(model: PreTrainedModel, size: Size) -> nn.ModuleList:
    kind, part, count = size
    largest = largest_layers(model.config)[kind]
    if part == "empty":
        return nn.ModuleList([_cut(model, largest.head_layer, heads=0, neurons=0)] * count)
    if part == "attention":
        return nn.ModuleList([_cut(model, largest.head_layer, heads=count, neurons=0)])
    return nn.ModuleList([_cut(model, largest.neuron_layer, heads=0, neurons=count)])


def _cut(model: PreTrainedModel, index: int, *, heads: int, neurons: int) -> nn.Module:
    """Copy one layer with its first heads and neurons only."""
    layer = copy.deepcopy(layers_of(model)[index])
    cut_layer(model, layer, range(heads), range(neurons))
    return layer.eval()


def _batch(model: PreTrainedModel, call: TimedCall) -> dict[str, Tensor]:
    words = int(model.config.vocab_size)
    generator = torch.Generator().manual_seed(mix_seed("latency"))
    # From 5 on, as lower ids are often special tokens: RoBERTa counts positions from the padding id.
    ids = torch.randint(min(5, words - 1), words, (call.batch_size, call.tokens), generator=generator)
    return {"input_ids": ids.to(model.device), "attention_mask": torch.ones_like(ids).to(model.device)}
