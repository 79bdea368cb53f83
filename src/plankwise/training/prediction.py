"""Predictions and scores of a model on one split, in fp32, whatever it was trained in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.records import TextsRead
from plankwise.data.batching.examples import (
    Collator,
    Example,
    encode_and_count,
    flatten,
    lengths_of,
    pool,
    token_budget_batches,
)
from plankwise.data.batching.inputs import Batch, model_inputs
from plankwise.data.task import Task
from plankwise.data.truncation import Pooling, Truncation
from plankwise.evaluation.metrics import METRICS, Array, Floats, decide, decide_flags

logger = logging.getLogger(__name__)
TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class Predictions:
    """Logits [examples, classes] of one split beside its ids and labels, in the split's order; and what was read."""

    ids: list[str]
    labels: Array
    logits: Floats
    read: TextsRead = field(default_factory=TextsRead)

    def scores(self, metrics: Sequence[str]) -> dict[str, float]:
        """Compute the named metrics."""
        return {name: METRICS[name](self.labels, self.logits) for name in metrics}


def predict(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, split: str, truncation: Truncation
) -> Predictions:
    """Run `model` over one split of `task`, sorted by length, and put the logits back into the split's order."""
    rows = task.splits[split]
    pooling = None if truncation.windows is None else truncation.windows.pooling
    examples, read = encode_and_count(rows, tokenizer, truncation)
    logits, labels = predict_logits(model, tokenizer, examples, pooling), np.asarray(rows["label"][:])
    warn_of_one_answer(labels, logits, task, split)
    return Predictions(list(rows["id"]), labels, logits, read)


def warn_of_one_answer(labels: Array, logits: Floats, task: Task, split: str) -> None:
    """Warn where all texts of a split get the same label, or set of labels, though their own differ.

    Args:
        labels: of the split, [examples] or [examples, classes].
        logits: of the model, [examples, classes].
        task: whose labels are named, unless its access is credentialed.
        split: its name, for the message.
    """
    found = decide(logits) if labels.ndim == 1 else decide_flags(logits)
    if (found != found[0]).any() or (labels == labels[0]).all():
        return
    chosen = [found[0]] if labels.ndim == 1 else np.flatnonzero(found[0])
    names = ", ".join(f"'{task.labels[each]}'" for each in chosen) or "none"
    same = ("the class " if labels.ndim == 1 else "the same labels, ") + names
    if task.access == "credentialed":
        same = "the same class" if labels.ndim == 1 else "the same labels"
    logger.warning("%s: all %d texts get %s; the model tells nothing apart", split, len(found), same)


@torch.inference_mode()
def predict_logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    pooling: Pooling | None = None,
    look_at: Callable[[list[int], Batch], None] = lambda indices, batch: None,
) -> Floats:
    """Compute the logits of encoded examples, [examples, classes], in their order; the model's mode is restored.

    Windows are run one by one, whatever text they are of, so that a long text takes no more memory than short ones,
    and pooled at the end.

    Args:
        model: a classifier.
        tokenizer: of the model.
        examples: by `encode`.
        pooling: of windows; needed where a text has several.
        look_at: called after each batch with its inputs' numbers, windows counted one by one, and the batch itself.
    """
    inputs, window_of = flatten(examples)
    if pooling is None and len(inputs) > len(examples):
        raise ValueError("these texts have several windows; say how to pool them")
    was_training = model.training
    model.eval()
    collate = Collator(tokenizer)
    logits = torch.zeros((len(inputs), int(model.config.num_labels)), dtype=torch.float64)
    for indices in token_budget_batches(lengths_of(inputs), TOKENS_PER_BATCH):
        batch = collate([inputs[index] for index in indices])
        placed = {name: value.to(model.device) for name, value in batch.items()}
        logits[indices] = model(**model_inputs(model, placed)).logits.double().cpu()
        look_at(indices, placed)
    model.train(was_training)
    return logits.numpy() if pooling is None else pool(logits, torch.tensor(window_of), pooling).numpy()
