"""The file of a domain experiment: the language model, its variants, tasks, seeds, and what trainings may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from plankwise.core.errors import RecipeError
from plankwise.core.numbers import Bounds, Seeds
from plankwise.core.recipe import Name, read_recipe, settings
from plankwise.data.truncation import Truncation
from plankwise.methods.registry import AnyMethod
from plankwise.run.recipe import AnyTask, Evaluation
from plankwise.training.fit import Training
from plankwise.training.objectives.settings import ObjectiveSettings

LARGE, COMPRESSED = "large", "compressed"  # names of the uncompressed model, and of the variant in the recipe's steps


@settings
class Downstream(Truncation):
    """One task to fine-tune the language models for; its texts are read as `Truncation` says.

    Attributes:
        name: of its runs.
        task: the data.
        fine_tuning: of the large model.
        compressed: fine-tuning of the small ones; the same by default.
        objective: the loss.
    """

    name: Name
    task: AnyTask
    fine_tuning: Training = Training()
    compressed: Training | None = None
    objective: ObjectiveSettings = ObjectiveSettings()


@settings
class Variant:
    """One way to a smaller model for each task.

    Attributes:
        steps: compress the language model, on its corpus.
        adapted: whether it starts from the language model that was trained on the corpus; otherwise from the source,
            with its vocabulary trimmed where that is asked for, so that the corpus plays no part.
        at_task: compress the model that was fine-tuned for a task, on that task.
    """

    steps: tuple[AnyMethod, ...] = ()
    adapted: bool = True
    at_task: tuple[AnyMethod, ...] = ()

    @pydantic.model_validator(mode="after")
    def _differs_from_the_large_model(self) -> Variant:
        if self.steps and not self.adapted:
            raise ValueError("steps compress the language model of the corpus; allowed with adapted: false: at_task")
        if self.adapted and not self.steps and not self.at_task:
            raise ValueError("it is the large model itself; allowed: steps, at_task, or adapted: false")
        return self


@settings
class Domain:
    """The domain experiment.

    Attributes:
        name: what tables call it.
        language_model: recipe of `plankwise pretrain`, beside this file; its steps are the one variant, unless
            `variants` are given.
        variants: by name.
        tasks: to fine-tune for.
        seeds: of each fine-tuning.
        prepare: steps without training that change the source once, before anything is trained; the texts they count
            are those of the corpus and the training texts of all tasks. A vocabulary is trimmed so.
        minutes: that training the large language model may take, and the steps of each variant as well. Epochs are
            scaled to that, by the speed of this machine; within a variant they keep their proportions.
        task_texts: whether the training texts of the tasks, without their labels, belong to the corpus.
        contamination: what happens where lines of the corpus are, or nearly are, test texts of a task.
        evaluation: how the end is measured.
    """

    name: Name
    language_model: Path
    tasks: Annotated[tuple[Downstream, ...], pydantic.Field(min_length=1)]
    variants: dict[Name, Variant] = field(default_factory=dict)
    seeds: Seeds = (1, 2, 3)
    prepare: tuple[AnyMethod, ...] = ()
    minutes: Annotated[float, Bounds(0, 10_000, "that is a week", above=True)] | None = None
    task_texts: bool = False
    contamination: Literal["refuse", "drop"] = "refuse"
    evaluation: Evaluation = Evaluation()

    @pydantic.model_validator(mode="after")
    def _can_be_told_apart(self) -> Domain:
        if LARGE in self.variants:
            raise ValueError(f"variants: '{LARGE}' is the uncompressed model; allowed: any other name")
        trained = next((number for number, step in enumerate(self.prepare) if step.training is not None), None)
        if trained is not None:
            raise ValueError(f"prepare.{trained}.training: the language model is trained afterwards; leave it out")
        return self


def read_domain(path: Path, overrides: Sequence[str] = ()) -> Domain:
    """Read the YAML file of a domain experiment; the path of its language model's recipe is relative to it."""
    domain = read_recipe(path, Domain, overrides)
    names = [each.name for each in domain.tasks]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RecipeError(f"{path}: two tasks are named '{repeated[0]}'")
    if len(set(domain.seeds)) < len(domain.seeds):
        raise RecipeError(f"{path}: seeds {list(domain.seeds)} name one twice")
    return domain
