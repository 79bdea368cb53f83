"""What an objective is, and the job that trainings and methods do for it.

An objective knows everything that depends on what a model answers: which head it has, how examples become batches, the
loss, the loss against a teacher, and the scores. Nothing outside this folder asks which objective it is dealing with;
it calls the objective, or reads one of the properties below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from typing_extensions import Self

from plankwise.core.texts_read import TextsRead
from plankwise.data.batching.examples import Example
from plankwise.data.batching.inputs import Batch
from plankwise.data.task import Task
from plankwise.data.truncation import Truncation
from plankwise.training.callbacks import Rehearsal
from plankwise.training.distillation.distillation_loss import Supervision
from plankwise.training.distillation.losses import Form
from plankwise.training.objectives.losses import Loss
from plankwise.training.objectives.masking import Masking
from plankwise.training.objectives.settings import ObjectiveSettings
from plankwise.training.trainer import TrainingData

Distill = Callable[[Sequence[Example] | None], AbstractContextManager[Supervision]]
ModelAndTokenizer = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a method may use.

    Attributes:
        task: without its test split.
        objective: what the model is trained and scored for.
        tokenizer: of the model.
        truncation: how much of a text the model sees; a corpus is cut into blocks of its `max_length`.
        seed: source of all randomness.
        folder: for checkpoints; the method's own.
        progress: whether to show a progress bar.
        cache: folder that keeps a corpus' tokens, teachers' predictions and importance; that of the user by default.
        baseline: loads the run's baseline with its tokenizer, for methods that learn from it; where there is none, the
            model passed in is all there is to learn from.
        rehearsal: times the training where it is only tried out.
        callbacks: further callbacks of every training.
    """

    task: Task
    objective: Objective
    tokenizer: PreTrainedTokenizerBase
    truncation: Truncation
    seed: int
    folder: Path
    progress: bool = False
    cache: Path | None = None
    baseline: Callable[[], ModelAndTokenizer] | None = None
    rehearsal: Rehearsal | None = None
    callbacks: tuple[TrainerCallback, ...] = ()


@dataclass(frozen=True)
class Sample:
    """Batches of the training split, to observe a model on.

    Attributes:
        batches: gives them one by one, on the model's device; each call gives the same.
        loss: the objective on them, a mean over a batch.
        examples: how many texts or blocks they hold.
    """

    batches: Callable[[], Iterator[Batch]]
    loss: Loss
    examples: int


@dataclass(frozen=True)
class Prepared:
    """A job's task made ready for training.

    Attributes:
        data: what `fit` trains on.
        supervision: the loss, and what is recorded of a teacher.
        texts_read: how much of each split's texts was read, where texts are truncated.
    """

    data: TrainingData
    supervision: Supervision
    texts_read: Mapping[str, TextsRead] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """Scores of a model on one split, and how much of its texts was read where texts are cut."""

    scores: dict[str, float]
    read: TextsRead | None = None


@dataclass(frozen=True)
class FewRows:
    """Rows that stand for the whole training split where a training is only tried out.

    Attributes:
        train: rows of the training split, which make up whole batches.
        development: how many rows of that split are enough.
        scale: how many times as long a step of the whole training takes.
    """

    train: Dataset
    development: int
    scale: float = 1.0


@dataclass(frozen=True)
class Objective(ABC):
    """What a model is trained and scored for. Subclasses are frozen dataclasses of the settings that they use.

    Attributes:
        kind: its name in a task.
        has_labels: whether examples are labelled with the task's labels, which a model then knows by name.
        reads_blocks: whether it reads full blocks of a corpus, not texts that are truncated one by one.
        ties_embeddings: whether the head shares the word embeddings.
        is_tested: whether a run ends with scores on a test split.
        inputs_change: whether an example's input differs from epoch to epoch, so that no prediction on it can be kept.
    """

    kind: ClassVar[str]
    has_labels: ClassVar[bool] = True
    reads_blocks: ClassVar[bool] = False
    ties_embeddings: ClassVar[bool] = False
    is_tested: ClassVar[bool] = True
    inputs_change: ClassVar[bool] = False

    @classmethod
    def from_settings(cls, settings: ObjectiveSettings, masking: Masking) -> Self:
        """Build the objective from a recipe's settings."""
        return cls()

    @classmethod
    def check_settings(cls, settings: ObjectiveSettings, truncation: Truncation) -> None:
        """Refuse settings that this objective would ignore.

        Raises:
            ValueError: naming the key and what is allowed.
        """
        del settings, truncation

    @abstractmethod
    def load(self, source: str, labels: Sequence[str], new_head: bool = True) -> PreTrainedModel:
        """Load a pretrained encoder with a head for `labels`; a head that is missing is random if `new_head`."""

    def load_baseline(self, source: str, labels: Sequence[str], names: Mapping[str, str] | None) -> PreTrainedModel:
        """Load a model that was trained for this objective, with the task's labels in the task's order.

        Args:
            source: folder or Hub id.
            labels: of the task.
            names: the task's labels by the model's own.
        """
        del names
        return self.load(source, labels, new_head=False)

    @abstractmethod
    def load_trained(self, folder: str) -> PreTrainedModel:
        """Load a model that was trained for this objective exactly as it was saved."""

    @abstractmethod
    def new_model(self, config: PreTrainedConfig, labels: Sequence[str]) -> PreTrainedModel:
        """Build a model with random weights from the current torch seed."""

    @abstractmethod
    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        """Refuse a tokenizer that lacks what batches of this objective need.

        Raises:
            ModelError: naming it.
        """

    def check_teacher(self, config: PreTrainedConfig, source: str) -> None:
        """Refuse a teacher that does not answer what this objective asks.

        Raises:
            ModelError: saying what it is.
        """
        del config, source

    def check_baseline(
        self, config: PreTrainedConfig, source: str, task: Task, names: Mapping[str, str] | None
    ) -> None:
        """Refuse a model that `load_baseline` would not take, by its configuration alone.

        Raises:
            ModelError: saying what it is, or naming its labels and the task's.
        """
        del config, source, task, names

    def check_texts(self, job: Job) -> None:
        """Refuse texts that turn out to be too few once a tokenizer that was trained on them is there.

        Raises:
            DataError: saying how many there are.
        """
        del job

    @abstractmethod
    def loss(self, task: Task) -> Loss:
        """Build the loss of the task alone."""

    @abstractmethod
    def logits_loss(self, student: Tensor, teacher: Tensor, temperature: float, form: Form = "kl") -> Tensor:
        """Compute the loss of a student's logits against a teacher's, [rows, classes] both; a mean over rows."""

    @abstractmethod
    def own_label_loss(self, generator: torch.Generator) -> Loss:
        """Build a loss at labels drawn from the model's own predictions; the labels of the batch are ignored."""

    @abstractmethod
    def training_data(self, model: PreTrainedModel, job: Job, distill: Distill) -> AbstractContextManager[Prepared]:
        """Turn the job's task into what `fit` trains `model` on, and count what was read of each split.

        Args:
            model: the network to train.
            job: what it is trained on.
            distill: opens the distillation on the encoded examples, or on `None` where they change; without a teacher
                its loss is the task's own.
        """

    @abstractmethod
    def sample(
        self, model: PreTrainedModel, job: Job, examples: int, *, loss: Loss | None = None, tokens: int | None = None
    ) -> AbstractContextManager[Sample]:
        """Draw up to `examples` examples of the training split, by the job's seed.

        Args:
            model: that will see them; hooks on it are gone when the context ends.
            job: of the step.
            examples: how many at most.
            loss: in the place of the task's own.
            tokens: how many at most, over all examples; there is always one example.
        """

    @abstractmethod
    def score(self, model: PreTrainedModel, job: Job, split: str) -> Scored:
        """Score a model on one split, in fp32."""

    @abstractmethod
    def count_examples(self, job: Job) -> int:
        """Count the examples that one epoch passes over; roughly where counting exactly would tokenize a corpus."""

    @abstractmethod
    def few_rows(self, job: Job, *, batch_size: int, batches: int, examples: int) -> FewRows:
        """Choose rows of train for a few batches of the usual length.

        Args:
            job: of the whole task.
            batch_size: of the training that is tried out.
            batches: how many.
            examples: as `count_examples` has it.
        """
