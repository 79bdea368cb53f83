"""Predictions and scores of a model on one split, in fp32, whatever it was trained in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.records import TextsRead
from plankwise.data.batching.examples import Collator, Example, encode_and_count, flatten, lengths_of
from plankwise.data.batching.inputs import Batch, model_inputs
from plankwise.data.batching.pooling import pooled
from plankwise.data.batching.token_budget import token_budget_batches
from plankwise.data.task import Task
from plankwise.data.truncation import Pooling, Truncation
from plankwise.evaluation.metrics import METRICS, Array, Floats, decide, decide_flags
from plankwise.evaluation.score_metrics import are_scores, is_constant

logger = logging.getLogger(__name__)
TOKENS_PER_BATCH = 4096  # padded tokens; fp32 on a GPU gains from larger batches than int8 on a CPU


@dataclass(frozen=True)
class Predictions:
    """Logits of one split.

    Attributes:
        ids: of the examples, in the split's order.
        labels: indices of classes or scores, [examples], or [examples, classes] of 0 and 1.
        logits: [examples, classes].
        read: how much of the texts the model saw.
    """

    ids: list[str]
    labels: Array
    logits: Floats
    read: TextsRead = field(default_factory=TextsRead)

    def scores(self, metrics: Sequence[str]) -> dict[str, float]:
        """Compute the named metrics, by their names."""
        return {name: METRICS[name](self.labels, self.logits) for name in metrics}


def predict(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, split: str, truncation: Truncation
) -> Predictions:
    """Compute the logits of `model` for one split of `task`, in the split's order."""
    rows = task.splits[split]
    pooling = None if truncation.windows is None else truncation.windows.pooling
    examples, read = encode_and_count(rows, tokenizer, truncation)
    logits, labels = predict_logits(model, tokenizer, examples, pooling), np.asarray(rows["label"][:])
    warn_of_one_answer(labels, logits, task, split)
    return Predictions(list(rows["id"]), labels, logits, read)


def warn_of_one_answer(labels: Array, logits: Floats, task: Task, split: str) -> None:
    """Warn if all texts of a split get the same label, set of labels or score, though their true ones differ.

    Args:
        labels: of the split, [examples] or [examples, classes].
        logits: of the model, [examples, classes].
        task: names the labels, unless its access is credentialed.
        split: name of the split, for the message.
    """
    if are_scores(labels):
        if is_constant(logits) and not is_constant(labels):
            logger.warning("%s: all %d texts get the same score; the model has failed", split, len(labels))
        return
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
    on_batch: Callable[[list[int], Batch], None] = lambda indices, batch: None,
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> Floats:
    """Compute the logits of encoded examples, [examples, classes], in their order; the model's mode is restored.

    Windows are batched by length, whatever text they belong to, and pooled at the end, so that a long text takes no
    more memory than short ones.

    Args:
        model: a classifier.
        tokenizer: of the model.
        examples: by `encode`.
        pooling: of windows; needed where a text has several.
        on_batch: called after each batch with the indices of its inputs, windows counted one by one, and the batch.
        tokens_per_batch: padded tokens of a batch, at most.

    Raises:
        ValueError: if a text has several windows and `pooling` is None.
    """
    inputs, window_of = flatten(examples)
    if pooling is None and len(inputs) > len(examples):
        raise ValueError("these texts have several windows; say how to pool them")
    was_training = model.training
    model.eval()
    collate = Collator(tokenizer)
    logits = torch.zeros((len(inputs), int(model.config.num_labels)), dtype=torch.float64)
    for indices in token_budget_batches(lengths_of(inputs), tokens_per_batch):
        batch = collate([inputs[index] for index in indices])
        placed = {name: value.to(model.device) for name, value in batch.items()}
        logits[indices] = model(**model_inputs(model, placed)).logits.double().cpu()
        on_batch(indices.tolist(), placed)
    model.train(was_training)
    return pooled(logits.numpy(), np.bincount(window_of, minlength=len(examples)), pooling)
