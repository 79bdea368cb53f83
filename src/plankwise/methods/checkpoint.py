"""Another checkpoint: fine-tune a smaller pretrained model in the place of the one given.

What one does who compresses a language model once and fine-tunes it for many tasks (the thesis' main experiment), and
the comparison that every task-specific method has to bear: a DistilBERT of the same tokenizer, fine-tuned directly.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import MethodError
from plankwise.core.recipe import settings
from plankwise.core.seeds import mix_seed
from plankwise.encoder.checkpoint import load_classifier, load_config
from plankwise.encoder.embeddings import tokens_are_unknown
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.tokenizer import adapted_tokenizer, load_tokenizer
from plankwise.methods.method import Job, train_on_task
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training


@settings
class Checkpoint:
    """Settings of fine-tuning another checkpoint.

    Attributes:
        source: a local folder or a Hub id; its tokenizer is that of the recipe's model.
        teacher: what is learned from a larger model beside the task.
        training: of the whole model.
    """

    method: Literal["checkpoint"] = "checkpoint"
    source: str
    teacher: DistillationConfig | None = None
    training: Training = Training()

    def plan(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """Give the configuration of the other model.

        Raises:
            MethodError: if the two do not share their tokenizer.
        """
        refuse_quantized(config)
        if tokens_are_unknown(config):
            raise MethodError(f"{self.source} has a tokenizer of its own, and a step before trims it; trim behind it")
        other = load_config(self.source)
        refuse_quantized(other)
        known_at = str(getattr(config, "name_or_path", "") or "")
        same = other.vocab_size == config.vocab_size
        if same and known_at:
            same = load_tokenizer(known_at).get_vocab() == load_tokenizer(self.source).get_vocab()
        if not same:
            raise MethodError(f"{self.source} has another tokenizer than the model; its vocabulary has to be the same")
        return other

    def compress(self, model: PreTrainedModel, job: Job) -> PreTrainedModel:
        """Load the other checkpoint with a new head and fine-tune it on the job's task."""
        if load_tokenizer(self.source).get_vocab() != job.tokenizer.get_vocab():
            raise MethodError(f"{self.source} has another tokenizer than the model; its vocabulary has to be the same")
        if job.task.kind == "masked_lm":
            raise MethodError("checkpoint fine-tunes for a task with labels; a corpus has none")
        labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        torch.manual_seed(mix_seed(job.seed, "checkpoint", "head"))
        other = load_classifier(self.source, labels, job.task.kind).to(model.device)
        tokenizer = adapted_tokenizer(job.tokenizer, other.config, self.source)
        if tokenizer is not job.tokenizer:
            job.deliver_tokenizer(tokenizer)
            job = dataclasses.replace(job, tokenizer=tokenizer)
        train_on_task(other, job, self.training, "checkpoint", teacher=self.teacher, given=model)
        return other.eval()
