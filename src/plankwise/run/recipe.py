"""The whole recipe: what every floor's settings add up to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from plankwise.core.numbers import Resamples, Rounds, Seed, Threads
from plankwise.core.recipe import Name, settings
from plankwise.data.corpus.corpus import Corpus
from plankwise.data.tasks.docstrings import Docstrings
from plankwise.data.tasks.germeval import GermEval2018, GermEval2019
from plankwise.data.tasks.labels import HeadLabels
from plankwise.data.tasks.tables import HubDataset, TableFiles
from plankwise.data.truncation import Truncation
from plankwise.methods.registry import AnyMethod
from plankwise.training.fit import Training
from plankwise.training.objectives.masking import Masking
from plankwise.training.objectives.registry import OBJECTIVES
from plankwise.training.objectives.settings import ObjectiveSettings
from plankwise.training.pretraining.config import PretrainingConfig

AnyTask = Annotated[
    GermEval2018 | GermEval2019 | Docstrings | TableFiles | HubDataset | Corpus, pydantic.Field(discriminator="name")
]


@settings
class Model(Truncation):
    """The encoder to compress: one that exists, or one to train from scratch on the task's own training texts.

    How it truncates texts is given beside it, as in `Truncation`; a corpus is cut into blocks of `max_length` tokens.

    Attributes:
        source: a local folder or a Hub id.
        scratch: geometry and pretraining of a new one.
        labels: the task's labels by the model's own, such as `{LABEL_0: none, LABEL_1: hate}`, where `baseline: null`
            takes a fine-tuned classifier; labels that are not named here keep their names.
    """

    source: str | None = None
    scratch: PretrainingConfig | None = None
    labels: HeadLabels | None = None

    @pydantic.model_validator(mode="after")
    def _one_of_both(self) -> Model:
        if (self.source is None) == (self.scratch is None):
            raise ValueError("give either source or scratch")
        return self


@settings
class Evaluation:
    """How the end is measured.

    Attributes:
        bootstrap: resamples of the test split for each 95 % interval.
        rounds: interleaved rounds of the timing.
        threads: torch threads while timing; all cores by default.
        onnx_baseline: also time the baseline in ONNX Runtime fp32, where that is installed; it is exported for that.
    """

    bootstrap: Resamples = 2000
    rounds: Rounds = 9
    threads: Threads | None = None
    onnx_baseline: bool = True


@settings
class Recipe:
    """One run: a task, a model, its baseline, and the steps that compress it.

    Attributes:
        name: what reports call the run.
        task: the data.
        model: the encoder.
        baseline: how the uncompressed model is fine-tuned; on a corpus, how the language model goes on training, and
            null takes it as it is. For a task with labels, null takes the fine-tuned classifier `model.source`.
        objective: the loss.
        masking: what a language model has to guess.
        steps: methods, in order.
        evaluation: how the end is measured.
        keep: the models of the steps that stay on disk: all, or the last. With `last` the model of a step is removed
            as soon as the next step is complete; the baseline and what is known of each step stay.
        seed: of everything random but the cut of the data.
    """

    name: Name
    task: AnyTask
    model: Model
    baseline: Training | None = Training()
    objective: ObjectiveSettings = ObjectiveSettings()
    masking: Masking = Masking()
    steps: tuple[AnyMethod, ...] = ()
    evaluation: Evaluation = Evaluation()
    keep: Literal["all", "last"] = "all"
    seed: Seed = 0

    @pydantic.model_validator(mode="after")
    def _nothing_is_ignored(self) -> Recipe:
        objective = OBJECTIVES[self.task.kinds[0]]
        objective.check_settings(self.objective, self.model)
        if self.baseline is None and objective.has_labels and self.model.source is None:
            raise ValueError("baseline: null takes a fine-tuned classifier as it is; allowed: with model.source")
        if self.model.labels is not None and (self.baseline is not None or not objective.has_labels):
            raise ValueError(
                "model.labels names the labels of a fine-tuned classifier; allowed: with baseline: null, for a task "
                "with labels"
            )
        if self.masking != Masking() and not objective.reads_blocks and self.model.scratch is None:
            raise ValueError(
                "masking is for training a language model; allowed: with a task of name 'corpus', or with model.scratch"
            )
        if self.evaluation != Evaluation() and not objective.is_tested:
            raise ValueError("evaluation is of a test split, and a corpus has none; leave it out")
        return self


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of recipes, for editors."""
    return pydantic.TypeAdapter(Recipe).json_schema(mode="validation")
