"""What a method is, what it may use, and the one way in which methods train."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from plankwise.core.cache import cache_folder
from plankwise.core.errors import MethodError
from plankwise.data.batching.examples import Collator, Example, encode, encode_and_count
from plankwise.data.batching.inputs import log_texts_read
from plankwise.data.corpus.blocks import blocks_of
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.data.truncation import Truncation, warn_if_other
from plankwise.encoder.checkpoint import load_masked_lm, load_trained
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.evaluation.metrics import METRICS
from plankwise.training.callbacks import Rehearsal
from plankwise.training.distillation.activations import Depth, depths_of
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.distillation.distillation_loss import Supervision, distillation
from plankwise.training.distillation.losses import sigmoid_logits_loss, softmax_logits_loss
from plankwise.training.distillation.teacher import Teacher, find_teacher
from plankwise.training.fit import Training, fit, uses_bf16
from plankwise.training.objectives.losses import Loss, over_windows
from plankwise.training.objectives.masking import Masking
from plankwise.training.prediction import predict_logits, warn_of_one_answer
from plankwise.training.pretraining.pretrain import masked_lm_data
from plankwise.training.trainer import OnStep, TrainingData, TrainingResult

TEXTS_READ = "texts_read"  # the note of how much of each split a training reads
Teach = Callable[[Sequence[Example] | None], AbstractContextManager[Supervision]]


def _ignore(key: str, value: Any) -> None:
    """Take a note and forget it."""


def _keep_own(tokenizer: PreTrainedTokenizerBase) -> None:
    """Take a tokenizer and forget it."""


@dataclass(frozen=True)
class Job:
    """What a method may use.

    Attributes:
        task: without its test split.
        tokenizer: of the model.
        truncation: how much of a text the model sees; a corpus is cut into blocks of its `max_length`.
        loss: the objective that every training recovers against.
        masking: what is guessed, where the task is a corpus.
        seed: source of all randomness.
        folder: for checkpoints; the method's own.
        progress: whether to show a progress bar.
        cache: folder that keeps a corpus' tokens and what teachers say; that of the user by default.
        baseline: loads the run's baseline with its tokenizer, for methods that learn from it; where there is none, the
            model passed in is all there is to learn from.
        deliver_tokenizer: takes the tokenizer of the model returned, where it is not the job's own.
        note: writes a key and a JSON value into the step's record. `seconds` names what a method spent besides
            training, such as `{"importance": 12.5}`; `TEXTS_READ`, by split, becomes a place of its own in the record.
        rehearsal: times the training where it is only tried out.
    """

    task: Task
    tokenizer: PreTrainedTokenizerBase
    truncation: Truncation
    loss: Loss
    seed: int
    folder: Path
    progress: bool = False
    note: Callable[[str, Any], None] = _ignore
    masking: Masking = field(default_factory=Masking)
    cache: Path | None = None
    baseline: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]] | None = None
    deliver_tokenizer: Callable[[PreTrainedTokenizerBase], None] = _keep_own
    rehearsal: Rehearsal | None = None


class Method(Protocol):
    """Settings that know how to compress. Implementations are frozen dataclasses; see the contract in the tests."""

    @property
    def method(self) -> str:
        """The name that recipes use."""
        ...

    @property
    def training(self) -> Training | None:
        """The settings of its training; `None` where it does not train."""
        ...

    def plan(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """Give the configuration of the model that `compress` would return.

        Raises:
            MethodError: if the method cannot work on such a model; nothing has been trained by then.
        """
        ...

    def compress(self, model: PreTrainedModel, job: Job) -> PreTrainedModel:
        """Return a smaller model; `model` itself is left as it is."""
        ...


def train_on_task(
    model: PreTrainedModel,
    job: Job,
    training: Training,
    title: str,
    on_step: OnStep | None = None,
    select_from: float = 0.0,
    *,
    teacher: DistillationConfig | None = None,
    given: PreTrainedModel | None = None,
    depths: Sequence[Depth] | None = None,
) -> TrainingResult:
    """Train `model` in place on the job's task and note what was done; the development split selects the weights.

    Args:
        model: the network to train.
        job: what it is trained on.
        training: settings.
        title: of the progress bar.
        on_step: as in `fit`.
        select_from: as in `fit`.
        teacher: what is learned beside the task's own loss; nothing without it.
        given: the model passed to the method, to learn from where the teacher is that one or there is no baseline.
        depths: where the layers of `model` are heard, if it is not a plain model.

    Raises:
        MethodError: if the teacher cannot teach this model, or it is quantized, before anything is trained.
    """
    refuse_quantized(model.config)

    def teach(examples: Sequence[Example] | None) -> AbstractContextManager[Supervision]:
        return _lesson(model, job, training, teacher, given, depths, examples)

    with _material(model, job, teach) as material:
        fitted = fit(
            model,
            material,
            training,
            seed=job.seed,
            folder=job.folder,
            on_step=on_step,
            select_from=select_from,
            progress=title if job.progress else None,
            rehearsal=job.rehearsal,
        )
    job.note("training", dataclasses.asdict(fitted))
    return fitted


def blocks_for(job: Job, split: str) -> Dataset:
    """Give a split of a corpus as full blocks of the job's length."""
    cache = cache_folder() / "blocks" if job.cache is None else job.cache
    return blocks_of(job.task.splits[split], job.task.hashes[split], job.tokenizer, job.truncation.max_length, cache)


@contextmanager
def _material(model: PreTrainedModel, job: Job, teach: Teach) -> Iterator[TrainingData]:
    """Make of the job's task what `fit` trains on."""
    if job.task.kind == "masked_lm":
        train, held_out = blocks_for(job, TRAIN), blocks_for(job, DEVELOPMENT)
        with (
            teach(None) as taught,
            masked_lm_data(
                model,
                job.tokenizer,
                train,
                job.masking,
                held_out=held_out,
                loss=taught.loss,
                teacher=taught.online_model,
            ) as material,
        ):
            yield material
        return
    examples, read = encode_and_count(job.task.splits[TRAIN], job.tokenizer, job.truncation)
    development, also_read = encode_and_count(job.task.splits[DEVELOPMENT], job.tokenizer, job.truncation)
    texts_read = {TRAIN: read, DEVELOPMENT: also_read}
    for split, each in texts_read.items():
        log_texts_read(f"{job.folder.name}, {split}", each)
    job.note(TEXTS_READ, {split: each.model_dump() for split, each in texts_read.items()})
    labels = job.task.splits[DEVELOPMENT].with_format("numpy")["label"][:]
    metric = METRICS[job.task.metrics[0]]
    pooling = None if job.truncation.windows is None else job.truncation.windows.pooling

    def evaluate(current: PreTrainedModel) -> float:
        logits = predict_logits(current, job.tokenizer, development, pooling)
        warn_of_one_answer(labels, logits, job.task, DEVELOPMENT)
        return metric(labels, logits)

    with teach(examples) as taught:
        yield TrainingData(
            [{**each, "example": at} for at, each in enumerate(examples)] if taught.needs_example_numbers else examples,
            Collator(job.tokenizer),
            taught.loss if pooling is None else over_windows(taught.loss, pooling),
            evaluate=evaluate,
        )


def _lesson(
    model: PreTrainedModel,
    job: Job,
    training: Training,
    teacher: DistillationConfig | None,
    given: PreTrainedModel | None,
    depths: Sequence[Depth] | None,
    examples: Sequence[Example] | None,
) -> AbstractContextManager[Supervision]:
    """Open the lesson of a teacher; without one, the job's own loss is all there is."""
    if teacher is None:
        return nullcontext(Supervision(job.loss))
    if job.task.kind == "masked_lm" and teacher.cache == "hidden":
        raise MethodError("teacher.cache 'hidden': on a corpus masks change, so nothing can be kept; allowed: none")
    corpus = job.task.kind == "masked_lm"
    expert = find_teacher(
        teacher,
        model,
        job.tokenizer,
        load=partial(load_masked_lm, head_is_new=False) if corpus else load_trained,
        has_labels=not corpus,
        given=given,
        baseline=job.baseline,
    )
    if not corpus:
        warn_if_other(job.truncation, stored_truncation(expert.model.config), f"the teacher {expert.name}")
    opened = distillation(
        model,
        depths_of(model) if depths is None else depths,
        expert,
        teacher,
        task_loss=job.loss,
        logits_loss=sigmoid_logits_loss if job.task.kind == "multi_label" else softmax_logits_loss,
        examples=examples if expert.shares_tokens else _as_read_by(expert, job),
        pooling=None if job.truncation.windows is None else job.truncation.windows.pooling,
        cache=cache_folder() / "teachers" if job.cache is None else job.cache,
        seed=job.seed,
        bf16=uses_bf16(training),
    )
    return _noted(opened, job)


def _as_read_by(expert: Teacher, job: Job) -> list[Example]:
    return encode(job.task.splits[TRAIN], expert.tokenizer, job.truncation)


@contextmanager
def _noted(opened: AbstractContextManager[Supervision], job: Job) -> Iterator[Supervision]:
    with opened as taught:
        if taught.log is not None:
            job.note("teacher", taught.log.as_dict())
        yield taught
