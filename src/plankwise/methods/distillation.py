"""Distillation: a smaller student learns from the task and from a teacher's logits, hidden states and relations.

Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531; hidden states as in
TinyBERT (Jiao et al. 2020, arXiv 1909.10351), relations as in MiniLMv2 (Wang et al. 2021, arXiv 2012.15828), cosine as
in DistilBERT (Sanh et al. 2019, arXiv 1910.01108). The student is a subset of the model's layers, a smaller encoder of
the same architecture with random weights, or the model itself, which then recovers from the steps before.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Literal

import pydantic
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from plankwise.core.numbers import Heads, Layer, Layers, Width
from plankwise.core.recipe import settings
from plankwise.core.seeds import mix_seed
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.shapes import new_model
from plankwise.encoder.surgery import Source, rebuild, resized, with_depth
from plankwise.methods.layer_init import Initialization, contiguous_modules, sources_of
from plankwise.methods.method import Compressed, Job, Method, ModelSpec, planned
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.on_task import train_on_task


@settings
class Sizes:
    """Sizes of a student with random weights, by their common names; a size that is left out is the model's own.

    Attributes:
        hidden_size: width of the hidden states.
        num_hidden_layers: depth.
        num_attention_heads: heads of each layer; a divisor of the width.
        intermediate_size: neurons of each layer's feed-forward part.
    """

    hidden_size: Width | None = None
    num_hidden_layers: Layers | None = None
    num_attention_heads: Heads | None = None
    intermediate_size: Width | None = None

    @pydantic.model_validator(mode="after")
    def _one_at_least(self) -> Sizes:
        if not self.given:
            names = ", ".join(each.name for each in dataclasses.fields(self))
            raise ValueError(f"give at least one of {names}")
        return self

    @property
    def given(self) -> dict[str, int]:
        """The sizes that are set, by name."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@settings
class Student:
    """The student before it is trained; by default the current model.

    Attributes:
        layers: how many layers of the current model to keep.
        keep: which of them, by rule or by number.
        sizes: of a new encoder with the same architecture, vocabulary and labels, instead of kept layers.
    """

    layers: Layers | None = None
    keep: Initialization | list[Layer] = "alternate"
    sizes: Sizes | None = None

    @pydantic.model_validator(mode="after")
    def _one_of_both(self) -> Student:
        if self.layers is not None and self.sizes is not None:
            raise ValueError("give layers or sizes, not both: a student of other sizes keeps no layer")
        if self.layers is None and self.keep != "alternate":
            raise ValueError("keep chooses among the layers that are kept; give layers, how many")
        return self


@settings
class Distillation(Method):
    """Settings of distillation.

    Attributes:
        student: the model that is trained.
        teacher: what it learns from.
        training: of the whole student.
    """

    method: Literal["distillation"] = "distillation"
    student: Student = Student()
    teacher: DistillationConfig = DistillationConfig()
    training: Training = Training()

    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Plan the student.

        Raises:
            MethodError: if the student's sizes do not fit the model or each other.
        """
        refuse_quantized(spec.config)
        return planned(self, spec, self._config(spec.config))

    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Build the student and train all of it."""
        torch.manual_seed(mix_seed(job.seed, "distillation", "initialization"))
        student = self._student(model)
        log = train_on_task(student, job, self.training, "distillation", teacher=self.teacher, given=model)
        return Compressed(student.eval(), job.tokenizer, log)

    def _config(self, config: PreTrainedConfig) -> PreTrainedConfig:
        if self.student.layers is not None:
            return with_depth(config, self._sources(int(config.num_hidden_layers)))
        if self.student.sizes is not None:
            return resized(config, **self.student.sizes.given)
        return copy.deepcopy(config)

    def _student(self, model: PreTrainedModel) -> PreTrainedModel:
        if self.student.layers is not None:
            return rebuild(model, self._sources(int(model.config.num_hidden_layers)))
        if self.student.sizes is not None:
            return new_model(type(model), self._config(model.config)).to(model.device, model.dtype)
        return copy.deepcopy(model).requires_grad_(True)

    def _sources(self, depth: int) -> list[Source]:
        assert self.student.layers is not None
        return sources_of(contiguous_modules(depth, self.student.layers), self.student.keep)
