"""A few batches of the training split, for methods that look at a model's work on real text without training on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from plankwise.core.seeds import mix_seed
from plankwise.data.batching.examples import Collator, encode, flatten, lengths_of
from plankwise.data.batching.inputs import Batch
from plankwise.data.batching.token_budget import token_budget_batches
from plankwise.data.task import TRAIN
from plankwise.methods.method import Job, blocks_for
from plankwise.training.objectives.losses import Loss, over_windows
from plankwise.training.objectives.masking import MaskedPositions, as_batch

TOKENS_PER_BATCH = 2048


@dataclass(frozen=True)
class Sample:
    """Batches to look at.

    Attributes:
        batches: gives them one by one, on the model's device; each call gives the same.
        loss: the objective on them, a mean over a batch.
        examples: how many texts or blocks they hold.
    """

    batches: Callable[[], Iterator[Batch]]
    loss: Loss
    examples: int


@contextmanager
def sampled(
    model: PreTrainedModel, job: Job, examples: int, loss: Loss | None = None, tokens: int | None = None
) -> Iterator[Sample]:
    """Draw up to `examples` texts, or blocks of a corpus, from the training split, by the job's seed.

    While the context lasts, the head of a masked LM sees masked positions only.

    Args:
        model: that will see them; a copy of it would not know which positions are masked.
        job: of the step.
        examples: how many at most.
        loss: in the place of the job's own; of several windows of a text it sees the pooled logits.
        tokens: how many at most, over all examples; one example there is always.
    """
    objective = job.loss if loss is None else loss
    if job.task.kind != "masked_lm":
        yield _texts(model, job, examples, objective, tokens)
        return
    most = examples if tokens is None else max(1, min(examples, tokens // job.truncation.max_length))
    blocks = _chosen(blocks_for(job, TRAIN), job, most)
    generator = torch.Generator(model.device)

    def batches() -> Iterator[Batch]:
        generator.manual_seed(mix_seed(job.seed, "sample", "masks"))
        rows = max(1, TOKENS_PER_BATCH // job.truncation.max_length)
        for start in range(0, len(blocks), rows):
            batch = as_batch([blocks[at] for at in range(start, min(start + rows, len(blocks)))])
            yield positions.prepare({name: value.to(model.device) for name, value in batch.items()}, generator)

    with MaskedPositions(job.tokenizer, job.masking).on(model) as positions:
        yield Sample(batches, objective, len(blocks))


def _texts(model: PreTrainedModel, job: Job, examples: int, loss: Loss, tokens: int | None) -> Sample:
    rows = encode(_chosen(job.task.splits[TRAIN], job, examples), job.tokenizer, job.truncation)
    if tokens is not None:
        rows = rows[: max(1, int(np.searchsorted(np.cumsum(lengths_of(rows)), tokens, side="right")))]
    collate = Collator(job.tokenizer)
    longest = [max(lengths_of(flatten([row])[0])) * len(row.get("windows", [row])) for row in rows]
    groups = token_budget_batches(longest, TOKENS_PER_BATCH)

    def batches() -> Iterator[Batch]:
        for group in groups:
            yield {name: value.to(model.device) for name, value in collate([rows[at] for at in group]).items()}

    windows = job.truncation.windows
    return Sample(batches, loss if windows is None else over_windows(loss, windows.pooling), len(rows))


def _chosen(rows: Dataset, job: Job, examples: int) -> Dataset:
    draw = np.random.default_rng(mix_seed(job.seed, "sample"))
    return rows.select(draw.permutation(len(rows))[:examples])
