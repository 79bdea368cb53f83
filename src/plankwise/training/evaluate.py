"""Predictions and scores of a model on one split, in fp32, whatever it was trained in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.data.encoding import Collator, encode, lengths_of, token_budget_batches
from plankwise.data.task import Task
from plankwise.training.metrics import METRICS, Array, Floats

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class Predictions:
    """Logits [examples, classes] of one split beside its ids and labels, in the split's order."""

    ids: list[str]
    labels: Array
    logits: Floats

    def scores(self, metrics: Sequence[str]) -> dict[str, float]:
        """Compute the named metrics."""
        return {name: METRICS[name](self.labels, self.logits) for name in metrics}


def predict(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, split: str, max_length: int
) -> Predictions:
    """Run `model` over one split of `task`, sorted by length, and put the logits back into the split's order."""
    rows = task.splits[split]
    logits = predict_logits(model, tokenizer, encode(rows, tokenizer, max_length))
    return Predictions(list(rows["id"]), np.asarray(rows["label"][:]), logits)


@torch.inference_mode()
def predict_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[dict[str, Any]]
) -> Floats:
    """Compute the logits of encoded examples, [examples, classes], in their order; the model's mode is restored."""
    was_training = model.training
    model.eval()
    collate = Collator(tokenizer)
    logits = np.zeros((len(examples), int(model.config.num_labels)))
    for indices in token_budget_batches(lengths_of(examples), TOKENS_PER_BATCH):
        batch = collate([examples[index] for index in indices])
        inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
        logits[indices] = model(**inputs).logits.double().cpu().numpy()
    model.train(was_training)
    return logits
