"""What every exporter traces: a model as a function of padded token ids, with free numbers of texts and tokens."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from plankwise.encoder.anatomy import attends_locally
from plankwise.encoder.configuration import usable_positions
from plankwise.encoder.empty_layers import fill_empty

MAX_TEXTS = 65_536


class Classifier(nn.Module):
    """A model that takes its inputs by position and returns only logits, float32 [texts, labels]."""

    def __init__(self, model: PreTrainedModel, inputs: Sequence[str]) -> None:
        super().__init__()
        self._model, self._inputs = model, tuple(inputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute logits of int64 inputs, each [texts, tokens]."""
        logits: Tensor = self._model(**dict(zip(self._inputs, inputs, strict=True))).logits
        return logits.float()


@contextmanager
def traceable(model: PreTrainedModel, inputs: Sequence[str]) -> Iterator[Classifier]:
    """Yield a copy of `model` that can be traced.

    In models with local attention, attention is written out: with padding, a row of fused attention may have no token
    to attend to, for which OpenVINO returns NaN.
    """
    own = copy.deepcopy(model).eval()
    fill_empty(own)
    if attends_locally(own.config):
        own.set_attn_implementation("eager")
    with torch.no_grad():
        yield Classifier(own, inputs)


def example(inputs: Sequence[str], texts: int = 2, tokens: int = 9) -> tuple[Tensor, ...]:
    """Create inputs for tracing, [texts, tokens]; no size is 1, which exporters would take for a constant."""
    made = {
        "input_ids": torch.full((texts, tokens), 5),
        "attention_mask": torch.ones((texts, tokens), dtype=torch.long),
    }
    zeros = torch.zeros((texts, tokens), dtype=torch.long)
    return tuple(made.get(name, zeros) for name in inputs)


def free_sizes(model: PreTrainedModel, inputs: Sequence[str]) -> tuple[tuple[dict[int, object], ...]]:
    """Return the free sizes of the inputs, as `torch.export` takes them: texts and tokens, the same for all inputs."""
    texts = torch.export.Dim("texts", min=1, max=MAX_TEXTS)
    tokens = torch.export.Dim("tokens", min=2, max=usable_positions(model.config))
    return (tuple({0: texts, 1: tokens} for _ in inputs),)
