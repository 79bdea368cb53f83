"""The whole recipe: what every floor's settings add up to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from plankwise.core.numbers import Resamples, Rounds, Seed, Threads
from plankwise.core.recipe import Name, settings
from plankwise.data.corpus.corpus import Corpus
from plankwise.data.tasks.docstrings import Docstrings
from plankwise.data.tasks.germeval import GermEval2018, GermEval2019
from plankwise.data.tasks.tables import HubDataset, Table
from plankwise.data.truncation import Truncation
from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.low_rank import TIED, LowRank
from plankwise.methods.quantization import CLASSIFIERS, Quantization
from plankwise.methods.registry import AnyMethod
from plankwise.training.fit import Training
from plankwise.training.objectives.masking import Masking
from plankwise.training.pretraining.config import PretrainingConfig

AnyTask = Annotated[
    GermEval2018 | GermEval2019 | Docstrings | Table | HubDataset | Corpus, pydantic.Field(discriminator="name")
]


@settings
class Model(Truncation):
    """The encoder to compress: one that exists, or one to train from scratch on the task's own training texts.

    Beside it stands how it reads texts, as in `Truncation`; a corpus is cut into blocks of `max_length` tokens.

    Attributes:
        source: a local folder or a Hub id.
        scratch: geometry and pretraining of a new one.
    """

    source: str | None = None
    scratch: PretrainingConfig | None = None

    @pydantic.model_validator(mode="after")
    def _one_of_both(self) -> Model:
        if (self.source is None) == (self.scratch is None):
            raise ValueError("give either source or scratch")
        return self


@settings
class Objective:
    """What every training of the run minimizes, beside what a method adds.

    Attributes:
        class_weights: `balanced` weighs each class against its frequency in train.
    """

    class_weights: Literal["none", "balanced"] = "none"


@settings
class Evaluation:
    """How the end is measured.

    Attributes:
        bootstrap: resamples of the test split behind each 95 % interval.
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
            null takes it as it is.
        objective: the loss.
        masking: what a language model has to guess.
        steps: methods, in order.
        evaluation: how the end is measured.
        seed: of everything random but the cut of the data.
    """

    name: Name
    task: AnyTask
    model: Model
    baseline: Training | None = Training()
    objective: Objective = Objective()
    masking: Masking = Masking()
    steps: tuple[AnyMethod, ...] = ()
    evaluation: Evaluation = Evaluation()
    seed: Seed = 0

    @pydantic.model_validator(mode="after")
    def _null_baseline_is_for_corpora(self) -> Recipe:
        if self.baseline is None and not isinstance(self.task, Corpus):
            raise ValueError("baseline: null is for a task of name 'corpus'; elsewhere the model has to be fine-tuned")
        return self

    @pydantic.model_validator(mode="after")
    def _fits_a_corpus(self) -> Recipe:
        if not isinstance(self.task, Corpus):
            return self
        if not self.model.whole:
            raise ValueError(
                "model.truncation and model.windows are for tasks with labels; allowed for a task of name 'corpus': "
                "max_length alone"
            )
        if any(isinstance(step, Checkpoint) for step in self.steps):
            raise ValueError("steps: checkpoint fine-tunes for a task with labels; a corpus has none")
        if any(getattr(getattr(step, "teacher", None), "cache", None) == "hidden" for step in self.steps):
            raise ValueError("steps: teacher.cache 'hidden' is for a task with labels; on a corpus masks change")
        if any(isinstance(step, LowRank) and step.embeddings is not None for step in self.steps):
            raise ValueError(f"steps: low_rank: {TIED}")
        if any(isinstance(step, Quantization) for step in self.steps):
            raise ValueError(f"steps: quantization: {CLASSIFIERS}")
        if self.objective.class_weights != "none":
            raise ValueError("objective.class_weights is for a task with labels; a corpus has none")
        return self


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema of recipes, for editors."""
    return pydantic.TypeAdapter(Recipe).json_schema(mode="validation")
