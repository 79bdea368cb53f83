"""Classification of texts and pairs: one label each, or any number."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from typing_extensions import Self

from plankwise.data.task import TRAIN, Task
from plankwise.encoder.checkpoint import load_classifier, load_fine_tuned, load_trained
from plankwise.encoder.classifier_head import check_classifier, head_order
from plankwise.encoder.shapes import new_model
from plankwise.evaluation.metrics import Array, Floats, log_loss
from plankwise.training.distillation.losses import Form, sigmoid_logits_loss, softmax_logits_loss
from plankwise.training.objectives.losses import Loss, balanced_weights, drawn_class_loss, task_loss
from plankwise.training.objectives.masking import Masking
from plankwise.training.objectives.settings import ObjectiveSettings
from plankwise.training.objectives.texts import TextObjective


@dataclass(frozen=True)
class _Classification(TextObjective):
    """What the two kinds of classification share."""

    class_weights: Literal["none", "balanced"] = "none"

    @classmethod
    def from_settings(cls, settings: ObjectiveSettings, masking: Masking) -> Self:
        """Build the objective from a recipe's settings."""
        return cls(settings.class_weights)

    def load(self, source: str, labels: Sequence[str], new_head: bool = True) -> PreTrainedModel:
        """Load an encoder with a classification head; labels are matched by name, as `load_classifier` says."""
        return load_classifier(source, labels, self.kind)

    def load_baseline(self, source: str, labels: Sequence[str], names: Mapping[str, str] | None) -> PreTrainedModel:
        """Load a fine-tuned classifier; labels are matched by name, as `load_fine_tuned` says."""
        return load_fine_tuned(source, labels, self.kind, names)

    def load_trained(self, folder: str) -> PreTrainedModel:
        """Load a fine-tuned classifier exactly as it was saved."""
        return load_trained(folder)

    def new_model(self, config: PreTrainedConfig, labels: Sequence[str]) -> PreTrainedModel:
        """Build a classifier with random weights from the current torch seed."""
        config = copy.deepcopy(config)
        config.num_labels = len(labels)
        made: PreTrainedModel = new_model(AutoModelForSequenceClassification._model_mapping[type(config)], config)
        return made

    def check_teacher(self, config: PreTrainedConfig, source: str) -> None:
        """Refuse a teacher that is no classifier."""
        check_classifier(config, source)

    def check_baseline(
        self, config: PreTrainedConfig, source: str, task: Task, names: Mapping[str, str] | None
    ) -> None:
        """Refuse what is no classifier, or one of other labels."""
        head_order(config, source, task.labels, self.kind, names=names, secret=task.access == "credentialed")

    def loss(self, task: Task) -> Loss:
        """Build the cross-entropy of the task, its classes weighted as the settings say."""
        if self.class_weights == "none":
            return task_loss(self.kind)
        labels = task.splits[TRAIN]["label"][:]
        return task_loss(self.kind, balanced_weights(labels, self.kind, len(task.labels)))

    def losses(self, labels: Array, logits: Floats) -> dict[str, float]:
        """Compute the cross-entropy, which tells models apart that decide alike."""
        return {"log_loss": log_loss(labels, logits)}


@dataclass(frozen=True)
class SingleLabel(_Classification):
    """One label for each text."""

    kind: ClassVar[str] = "single_label"

    def logits_loss(self, student: Tensor, teacher: Tensor, temperature: float, form: Form = "kl") -> Tensor:
        """Compute the divergence of the student's classes from the teacher's, or the error of its logits."""
        return softmax_logits_loss(student, teacher, temperature, form)

    def own_label_loss(self, generator: torch.Generator) -> Loss:
        """Draw each text's class from the softmax."""
        return drawn_class_loss(generator)


@dataclass(frozen=True)
class MultiLabel(_Classification):
    """Any number of labels for each text."""

    kind: ClassVar[str] = "multi_label"

    def logits_loss(self, student: Tensor, teacher: Tensor, temperature: float, form: Form = "kl") -> Tensor:
        """Compute the divergence of the student's labels from the teacher's, each alone, or the error of its logits."""
        return sigmoid_logits_loss(student, teacher, temperature, form)

    def own_label_loss(self, generator: torch.Generator) -> Loss:
        """Draw each text's labels one by one, from their sigmoids."""

        def loss(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
            logits = outputs.logits.float()
            drawn_labels = torch.bernoulli(torch.sigmoid(logits.detach()), generator=generator)
            summed = functional.binary_cross_entropy_with_logits(logits, drawn_labels, reduction="sum")
            return summed / len(logits)

        return loss
