"""Objectives with one signature: `(outputs, batch) -> scalar`. They add up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from plankwise.data.batching.pooling import pool
from plankwise.data.task import Kind
from plankwise.data.truncation import Pooling

Loss = Callable[[Any, Mapping[str, Tensor]], Tensor]


def task_loss(kind: Kind, class_weights: Sequence[float] | None = None) -> Loss:
    """Cross-entropy for one label per text, binary cross-entropy per label for several; a mean over the batch.

    Args:
        kind: of the task.
        class_weights: one factor per label, in logit order; `None` weighs all alike.
    """

    def loss(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        logits, labels = outputs.logits.float(), batch["labels"]
        weights = None if class_weights is None else torch.tensor(class_weights, device=logits.device)
        if kind == "single_label":
            return functional.cross_entropy(logits, labels, weight=weights)
        return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)

    return loss


def over_windows(loss: Loss, pooling: Pooling) -> Loss:
    """Wrap `loss` so that it gets one row of logits for each text, pooled over its windows by `batch["window_of"]`.

    Pooling is done in fp32. What else the outputs hold stays as it is, one row for each window.
    """

    def pooled(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        logits = pool(outputs.logits.float(), batch["window_of"], pooling)
        return loss(dataclasses.replace(outputs, logits=logits), batch)

    return pooled


def masked_lm_loss(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy over masked positions; `outputs.logits` are those of the masked positions, [masked, vocabulary]."""
    return functional.cross_entropy(outputs.logits.float(), batch["labels"])


def drawn_class_loss(generator: torch.Generator) -> Loss:
    """Build the cross-entropy at classes drawn from the model's own softmax; the labels of the batch are ignored."""

    def loss(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
        logits = outputs.logits.float()
        chosen = torch.multinomial(torch.softmax(logits.detach(), dim=-1), 1, generator=generator)[:, 0]
        return functional.cross_entropy(logits, chosen)

    return loss


def balanced_weights(labels: Sequence[Any], kind: Kind, classes: int) -> list[float]:
    """Weigh each class against its frequency.

    For one label per text n / (classes · n_c), scikit-learn's "balanced"; for several, negatives per positive.
    """
    if kind == "single_label":
        counts = [max(1, sum(label == index for label in labels)) for index in range(classes)]
        return [len(labels) / (classes * count) for count in counts]
    positives = [max(1.0, sum(flags[index] for flags in labels)) for index in range(classes)]
    return [(len(labels) - count) / count for count in positives]
