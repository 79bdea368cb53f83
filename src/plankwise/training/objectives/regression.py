"""Regression of texts and pairs: one number each, such as the similarity of two sentences."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from plankwise.core.errors import ModelError
from plankwise.data.task import Task
from plankwise.data.truncation import Truncation
from plankwise.encoder.checkpoint import load_scorer, load_trained
from plankwise.encoder.score_head import activation_of, check_scorer, make_regressor
from plankwise.encoder.shapes import new_model
from plankwise.evaluation.metrics import Array, Floats
from plankwise.evaluation.score_metrics import mean_squared_error
from plankwise.training.distillation.losses import Form
from plankwise.training.objectives.losses import Loss
from plankwise.training.objectives.settings import ObjectiveSettings
from plankwise.training.objectives.texts import TextObjective


@dataclass(frozen=True)
class Regression(TextObjective):
    """One score for each text or pair, as the only logit has it: no sigmoid, any range."""

    kind: ClassVar[str] = "regression"

    @classmethod
    def check_settings(cls, settings: ObjectiveSettings, truncation: Truncation) -> None:
        """Refuse weights of classes, which a score does not have."""
        del truncation
        if settings.class_weights != "none":
            raise ValueError(f"objective.class_weights {settings.class_weights} is for classes; the task has a score")

    def load(self, source: str, labels: Sequence[str], new_head: bool = True) -> PreTrainedModel:
        """Load an encoder with a head of one output; the head of a model that scores already is kept."""
        return load_scorer(source)

    def load_baseline(self, source: str, labels: Sequence[str], names: Mapping[str, str] | None) -> PreTrainedModel:
        """Load a fine-tuned regressor as it is."""
        model = load_trained(source)
        make_regressor(model.config)
        return model

    def load_trained(self, folder: str) -> PreTrainedModel:
        """Load a fine-tuned regressor exactly as it was saved."""
        return load_trained(folder)

    def new_model(self, config: PreTrainedConfig, labels: Sequence[str]) -> PreTrainedModel:
        """Build a regressor with random weights from the current torch seed."""
        config = copy.deepcopy(config)
        make_regressor(config)
        made: PreTrainedModel = new_model(AutoModelForSequenceClassification._model_mapping[type(config)], config)
        return made

    def check_teacher(self, config: PreTrainedConfig, source: str) -> None:
        """Refuse a teacher that does not score."""
        check_scorer(config, source)

    def check_baseline(
        self, config: PreTrainedConfig, source: str, task: Task, names: Mapping[str, str] | None
    ) -> None:
        """Refuse what does not answer with one number as it is, and names of labels."""
        check_scorer(config, source)
        if activation_of(config, source) != "identity":
            raise ModelError(
                f"{source} reads its scores through a sigmoid, and the task is scored on numbers as they are; allowed: "
                "problem_type 'regression' in its config.json, if its logits were trained to be the scores"
            )
        if names:
            raise ModelError(f"model.labels names labels, and {source} answers with a score; leave it out")

    def loss(self, task: Task) -> Loss:
        """Build the mean squared error."""
        del task

        def loss(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
            return functional.mse_loss(outputs.logits.float()[:, 0], batch["labels"].float())

        return loss

    def logits_loss(self, student: Tensor, teacher: Tensor, temperature: float, form: Form = "kl") -> Tensor:
        """Compute the mean squared error of the scores; temperature and form make no difference to a number.

        The divergence of two normal distributions with the same variance is the squared error of their means.
        """
        del temperature, form
        return functional.mse_loss(student.float(), teacher.float())

    def own_label_loss(self, generator: torch.Generator) -> Loss:
        """Draw each text's score from a normal distribution around the model's own, with a variance of 1."""

        def loss(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
            logits = outputs.logits.float()
            noise = torch.randn(logits.shape, generator=generator, device=generator.device).to(logits.device)
            return functional.mse_loss(logits, logits.detach() + noise) / 2

        return loss

    def losses(self, labels: Array, logits: Floats) -> dict[str, float]:
        """Compute the mean squared error, which correlations do not show."""
        return {"mse_loss": mean_squared_error(labels, logits)}
