"""Masked language modelling on blocks of a corpus."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from typing_extensions import Self

from plankwise.core.cache import cache_folder
from plankwise.core.errors import ModelError
from plankwise.core.seeds import mix_seed
from plankwise.data.batching.inputs import Batch
from plankwise.data.corpus.blocks import blocks_of
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.data.truncation import Truncation
from plankwise.encoder.checkpoint import load_masked_lm
from plankwise.training.distillation.losses import Form, softmax_logits_loss
from plankwise.training.objectives.losses import Loss, drawn_class_loss, masked_lm_loss
from plankwise.training.objectives.masking import (
    MaskedPositions,
    Masking,
    as_batch,
    masked_lm_data,
    new_masked_lm,
    score_masked_lm,
)
from plankwise.training.objectives.objective import Distill, FewRows, Job, Objective, Prepared, Sample, Scored
from plankwise.training.objectives.settings import ObjectiveSettings
from plankwise.training.objectives.texts import SAMPLE_TOKENS, SAMPLED_TEXTS, drawn


@dataclass(frozen=True)
class MaskedLM(Objective):
    """Predicting masked tokens of a corpus."""

    kind: ClassVar[str] = "masked_lm"
    has_labels: ClassVar[bool] = False
    reads_blocks: ClassVar[bool] = True
    ties_embeddings: ClassVar[bool] = True
    is_tested: ClassVar[bool] = False
    inputs_change: ClassVar[bool] = True

    masking: Masking = field(default_factory=Masking)

    @classmethod
    def from_settings(cls, settings: ObjectiveSettings, masking: Masking) -> Self:
        """Build the objective from a recipe's masking."""
        return cls(masking)

    @classmethod
    def check_settings(cls, settings: ObjectiveSettings, truncation: Truncation) -> None:
        """Refuse what is for tasks with labels."""
        if not truncation.whole:
            raise ValueError(
                "model.truncation and model.windows are for tasks with labels; allowed for a task of name 'corpus': "
                "max_length alone"
            )
        if settings.class_weights != "none":
            raise ValueError("objective.class_weights is for a task with labels; a corpus has none")

    def load(self, source: str, labels: Sequence[str], new_head: bool = True) -> PreTrainedModel:
        """Load an encoder with its masked-LM head."""
        return load_masked_lm(source, head_is_new=new_head)

    def load_trained(self, folder: str) -> PreTrainedModel:
        """Load a language model whose head must be there."""
        return load_masked_lm(folder, head_is_new=False)

    def new_model(self, config: PreTrainedConfig, labels: Sequence[str]) -> PreTrainedModel:
        """Build a masked LM with random weights from the current torch seed."""
        return new_masked_lm(copy.deepcopy(config))

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        """Refuse a tokenizer that cannot mask, or mark the ends of a block."""
        for name in ("mask_token", "cls_token", "sep_token"):
            if getattr(tokenizer, f"{name}_id") is None:
                raise ModelError(f"the tokenizer of {source} has no {name}; a masked LM needs one")

    def check_texts(self, job: Job) -> None:
        """Refuse a held-out part that does not fill one block."""
        blocks_for(job, DEVELOPMENT)

    def loss(self, task: Task) -> Loss:
        """Return the cross-entropy over masked positions."""
        return masked_lm_loss

    def logits_loss(self, student: Tensor, teacher: Tensor, temperature: float, form: Form = "kl") -> Tensor:
        """Compute the divergence of the student's tokens from the teacher's; logits are [masked, vocabulary]."""
        return softmax_logits_loss(student, teacher, temperature, form)

    def own_label_loss(self, generator: torch.Generator) -> Loss:
        """Draw the token of each masked position from the softmax."""
        return drawn_class_loss(generator)

    @contextmanager
    def training_data(self, model: PreTrainedModel, job: Job, distill: Distill) -> Iterator[Prepared]:
        """Cut both splits into blocks; masks are drawn again for each batch, and a teacher sees the same ones."""
        train, held_out = blocks_for(job, TRAIN), blocks_for(job, DEVELOPMENT)
        with (
            distill(None) as taught,
            masked_lm_data(
                model,
                job.tokenizer,
                train,
                self.masking,
                held_out=held_out,
                loss=taught.loss,
                teacher=taught.online_model,
            ) as data,
        ):
            yield Prepared(data, taught)

    @contextmanager
    def sample(
        self, model: PreTrainedModel, job: Job, examples: int, *, loss: Loss | None = None, tokens: int | None = None
    ) -> Iterator[Sample]:
        """Draw blocks; while the context lasts, the head of `model`, not of a copy, sees masked positions only."""
        most = examples if tokens is None else max(1, min(examples, tokens // job.truncation.max_length))
        blocks = drawn(blocks_for(job, TRAIN), job, most)
        generator = torch.Generator(model.device)

        def batches() -> Iterator[Batch]:
            generator.manual_seed(mix_seed(job.seed, "sample", "masks"))
            rows = max(1, SAMPLE_TOKENS // job.truncation.max_length)
            for start in range(0, len(blocks), rows):
                batch = as_batch([blocks[at] for at in range(start, min(start + rows, len(blocks)))])
                yield positions.prepare({name: value.to(model.device) for name, value in batch.items()}, generator)

        with MaskedPositions(job.tokenizer, self.masking).on(model) as positions:
            yield Sample(batches, masked_lm_loss if loss is None else loss, len(blocks))

    def score(self, model: PreTrainedModel, job: Job, split: str) -> Scored:
        """Measure masked accuracy and perplexity on blocks of the split."""
        return Scored(score_masked_lm(model, job.tokenizer, blocks_for(job, split), self.masking))

    def count_examples(self, job: Job) -> int:
        """Estimate the blocks of train from a sample of its texts, which is not tokenized for this."""
        texts = job.task.splits[TRAIN]
        some = texts.select(range(0, len(texts), math.ceil(len(texts) / SAMPLED_TEXTS)))
        # One token ends each text; of a block's tokens one is its [CLS].
        tokens = sum(len(ids) + 1 for ids in job.tokenizer(some["text"][:], add_special_tokens=False)["input_ids"])
        return max(1, round(tokens * len(texts) / len(some) / (job.truncation.max_length - 1)))

    def few_rows(self, job: Job, *, batch_size: int, batches: int, examples: int) -> FewRows:
        """Choose enough texts to fill the blocks of the batches, and as many held out."""
        train = job.task.splits[TRAIN].shuffle(seed=0)
        rows = min(len(train), math.ceil(batches * batch_size * len(train) / examples))
        return FewRows(train.select(range(rows)), development=rows)


def blocks_for(job: Job, split: str) -> Dataset:
    """Return a split of a corpus as full blocks of the job's length."""
    cache = cache_folder() / "blocks" if job.cache is None else job.cache
    return blocks_of(job.task.splits[split], job.task.hashes[split], job.tokenizer, job.truncation.max_length, cache)
