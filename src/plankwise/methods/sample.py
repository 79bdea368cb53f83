"""A seeded sample of the training split, for what methods measure on the task before they change a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from plankwise.core.runtime import mix_seed
from plankwise.data.encoding import Batch, Collator, encode, lengths_of
from plankwise.data.task import TRAIN
from plankwise.methods.method import Job, blocks_for
from plankwise.training.losses import Loss, over_windows
from plankwise.training.pretraining import masked_lm_material

BATCH_SIZE = 16


@dataclass(frozen=True)
class Sample:
    """Some of the training split, ready for the model.

    Attributes:
        batches: on the model's device; those of a corpus are masked.
        loss: the job's own; a mean over the batch.
        examples: how many there are: texts, or blocks of a corpus.
    """

    batches: Iterator[Batch]
    loss: Loss
    examples: int


@contextmanager
def sample_of(model: PreTrainedModel, job: Job, examples: int, purpose: str) -> Iterator[Sample]:
    """Draw at most `examples` of the training split, by the job's seed; every process draws the same.

    Args:
        model: that is to see them. While the context lasts, the head of a masked LM sees masked positions only.
        job: with the task.
        examples: how many at most.
        purpose: two purposes draw different samples.
    """
    if job.task.kind != "masked_lm":
        rows = encode(_some(job.task.splits[TRAIN], job, examples, purpose), job.tokenizer, job.reading)
        rows.sort(key=lambda row: lengths_of([row])[0])
        collate, windows = Collator(job.tokenizer), job.reading.windows
        loss = job.loss if windows is None else over_windows(job.loss, windows.pooling)
        batches = (collate(rows[at : at + BATCH_SIZE]) for at in range(0, len(rows), BATCH_SIZE))
        yield Sample((_placed(batch, model) for batch in batches), loss, len(rows))
        return
    blocks = _some(blocks_for(job, TRAIN), job, examples, purpose)
    torch.manual_seed(mix_seed(job.seed, purpose, "masking"))
    with masked_lm_material(model, job.tokenizer, blocks, None, job.masking, job.loss) as material:
        prepare = material.prepare
        assert prepare is not None
        numbers = range(len(blocks))
        parts = (numbers[at : at + BATCH_SIZE] for at in range(0, len(blocks), BATCH_SIZE))
        masked = (prepare(_placed(material.collate([blocks[at] for at in part]), model)) for part in parts)
        yield Sample(masked, material.loss, len(blocks))


def _some(rows: Dataset, job: Job, examples: int, purpose: str) -> Dataset:
    if len(rows) <= examples:
        return rows
    draw = np.random.default_rng(mix_seed(job.seed, purpose, "sample"))
    return rows.select(sorted(draw.choice(len(rows), examples, replace=False).tolist()))


def _placed(batch: Batch, model: PreTrainedModel) -> Batch:
    return {name: value.to(model.device) for name, value in batch.items()}
