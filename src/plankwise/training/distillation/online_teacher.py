"""The targets that a teacher provides for a batch, and the teacher that computes them at every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from plankwise.data.batching.inputs import model_inputs
from plankwise.data.batching.pooling import pool
from plankwise.data.truncation import Pooling
from plankwise.training.distillation.activations import ActivationRecorder
from plankwise.training.distillation.layer_mapping import LayerMapping


@dataclass(frozen=True)
class TeacherTargets:
    """What a student is compared with, for one batch.

    Attributes:
        logits: [texts, classes], pooled over windows; on a corpus those of the masked positions, [masked, vocabulary].
        hidden: hidden states by teacher layer, [inputs, tokens, width].
        query_key_value: queries, keys and values of the layer with compared relations, [inputs, tokens, width] each;
            empty if relations are not compared.
    """

    logits: Tensor
    hidden: Mapping[int, Tensor]
    query_key_value: tuple[Tensor, ...] = ()


class TargetSource(Protocol):
    """Where the targets come from: a teacher that runs at every step, or what it computed before training."""

    def targets(self, batch: Mapping[str, Tensor], mask: Tensor) -> TeacherTargets:
        """Return the targets of a batch; `mask`, [inputs, tokens], is 1 at tokens and 0 at padding."""
        ...


class OnlineTeacher:
    """A teacher that runs at every step.

    Args:
        model: the teacher.
        recorder: of its activations; it has to be on.
        mapping: the layers compared.
        pooling: of windows.
        bf16: whether it runs in bf16 autocast, as the student does.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        recorder: ActivationRecorder,
        mapping: LayerMapping,
        *,
        pooling: Pooling | None,
        bf16: bool,
    ) -> None:
        self._model, self._recorder, self._mapping = model, recorder, mapping
        self._pooling, self._bf16 = pooling, bf16

    def targets(self, batch: Mapping[str, Tensor], mask: Tensor) -> TeacherTargets:
        """Run the teacher on a batch."""
        # The Trainer wraps the student's forward pass alone in autocast, so the teacher needs its own.
        with torch.no_grad(), torch.autocast(mask.device.type, torch.bfloat16, enabled=self._bf16):
            logits: Tensor = self._model(**model_inputs(self._model, batch)).logits.float()
        if self._pooling is not None:
            logits = pool(logits, batch["window_of"], self._pooling)
        return TeacherTargets(
            logits,
            {layer: self._recorder.hidden(layer) for layer in self._mapping.layers(1)},
            () if self._mapping.relations is None else self._recorder.query_key_value(),
        )
