"""What a method is: a frozen dataclass of settings that plans on a `ModelSpec` and compresses a model for a `Job`."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.errors import MethodError
from plankwise.core.step_log import StepLog as StepLog
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.distillation.teacher import check_teacher
from plankwise.training.fit import Training, check_training
from plankwise.training.objectives.objective import Job as Job
from plankwise.training.objectives.objective import Objective


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What is known of a model before it is loaded, and of the models that steps will make of it.

    Attributes:
        config: of the model.
        tokenizer: of the model; `None` where one is yet to be trained or trimmed.
        objective: what the model is trained and scored for.
        baseline: configuration of the run's uncompressed model; `None` without a run.
        trimmed: whether a step trims the vocabulary, so that which tokens the model has is known once they are counted.
    """

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase | None
    objective: Objective
    baseline: PreTrainedConfig | None = None
    trimmed: bool = False


@dataclass(frozen=True)
class Compressed:
    """What a method returns.

    Attributes:
        model: the smaller model, in evaluation mode.
        tokenizer: of that model.
        log: what was done.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    log: StepLog


class Method(ABC):
    """One way of compressing. Subclasses are `@settings` dataclasses, whose fields are the keys of a recipe's step.

    Attributes:
        method: the name that recipes use.
        training: the settings of its training; `None` where it does not train.
        teacher: what that training learns from a larger model, beside the task.
        credentialed_warning: what the result reveals of texts that must not leave the machine; nothing if empty.
    """

    method: str
    training: Training | None
    teacher: DistillationConfig | None
    credentialed_warning: ClassVar[str] = ""

    @abstractmethod
    def plan(self, spec: ModelSpec) -> ModelSpec:
        """Return what will be known of the model that `compress` returns.

        Raises:
            PlankwiseError: if the method cannot work on such a model; nothing has been trained by then.
        """

    @abstractmethod
    def compress(self, model: PreTrainedModel, job: Job) -> Compressed:
        """Return a smaller model; `model` itself is left as it is."""

    def plan_from_texts(self, spec: ModelSpec, job: Job) -> tuple[ModelSpec, Mapping[str, float]]:
        """Plan with the texts at hand, for an estimate of a run's cost.

        Returns:
            What `plan` returns, more exactly where the texts decide; and the seconds of work that was estimated for
            this. Where there are any, the step's own work beside training need not be tried out.
        """
        return self.plan(spec), {}

    def examples_used(self, available: int) -> int:
        """Return how many of the training examples the method's own work looks at, beside training."""
        return available


def planned(method: Method, spec: ModelSpec, config: PreTrainedConfig, **changes: Any) -> ModelSpec:
    """Return `spec` with the configuration that `method` leaves, after the checks that all methods share.

    Args:
        method: that plans.
        spec: of the model before it.
        config: of the model after it.
        changes: of other fields of `spec`.

    Raises:
        MethodError: if the teacher cannot teach such a model.
        RecipeError: if the training's settings cannot work on this machine.
    """
    if method.training is not None:
        check_training(method.training)
    if method.teacher is not None:
        if spec.objective.inputs_change and method.teacher.cache == "hidden":
            raise MethodError("teacher.cache 'hidden' is for a task with labels; on a corpus masks change")
        check_teacher(method.teacher, int(config.num_hidden_layers))
    return dataclasses.replace(spec, config=config, **changes)
