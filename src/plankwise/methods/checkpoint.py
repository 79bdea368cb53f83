"""Another checkpoint: fine-tune a smaller pretrained model instead of the current one.

For a language model that is compressed once and fine-tuned for many tasks, and as the baseline of task-specific
methods: a DistilBERT with the same tokenizer, fine-tuned directly.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.errors import MethodError
from plankwise.core.recipe import settings
from plankwise.core.seeds import mix_seed
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.tokenizer import adapted_tokenizer, load_tokenizer
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, planned
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.on_task import train_on_task


@settings
class Checkpoint(Method):
    """Settings of fine-tuning another checkpoint.

    Attributes:
        source: a local folder or a Hub id; it has the tokenizer of the recipe's model.
        teacher: what is learned from a larger model, beside the task.
        training: of the whole model.
    """

    method: Literal["checkpoint"] = "checkpoint"
    source: str
    teacher: DistillationConfig | None = None
    training: Training = Training()

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan the other model.

        Raises:
            MethodError: if the two do not share their tokenizer.
        """
        refuse_quantized(spec.config)
        if not spec.objective.has_labels:
            raise MethodError("checkpoint fine-tunes for a task with labels; a corpus has none")
        if spec.trimmed:
            raise MethodError(f"{self.source} has a tokenizer of its own, and a step before trims it; trim after it")
        other = load_config(self.source)
        refuse_quantized(other)
        differs = spec.tokenizer is not None and self._is_other(spec.tokenizer)
        if differs or other.vocab_size != spec.config.vocab_size:
            raise MethodError(f"{self.source} has another tokenizer than the model; its vocabulary has to be the same")
        return planned(self, spec, other)

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Load the other checkpoint with a new head and fine-tune it on the job's task."""
        if self._is_other(job.tokenizer):  # only now known where the model was trained from scratch
            raise MethodError(f"{self.source} has another tokenizer than the model; its vocabulary has to be the same")
        labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
        torch.manual_seed(mix_seed(job.seed, "checkpoint", "head"))  # the new head is random
        other = job.objective.load(self.source, labels).to(model.device)
        tokenizer = adapted_tokenizer(job.tokenizer, other.config, self.source)
        job = dataclasses.replace(job, tokenizer=tokenizer)
        log = train_on_task(other, job, self.training, "checkpoint", teacher=self.teacher, given=model)
        return Compressed(other.eval(), tokenizer, log)

    def _is_other(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        return bool(load_tokenizer(self.source).get_vocab() != tokenizer.get_vocab())
