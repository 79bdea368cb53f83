"""What a recipe will cost, before anything is trained: steps counted, seconds rehearsed on a few real batches."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)

from plankwise.core.hardware import default_device
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.data.truncation import Truncation
from plankwise.encoder.cost import count_parameters
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.methods.method import Job, Method, ModelSpec, StepLog
from plankwise.run.pipeline import Checked
from plankwise.training.callbacks import Rehearsal
from plankwise.training.fit import Training, planned_steps
from plankwise.training.objectives.registry import objective_of
from plankwise.training.on_task import train_on_task
from plankwise.training.pretraining.pretrain import rehearse_pretraining

logger = logging.getLogger(__name__)
REHEARSED_BATCHES = 6
SECONDS_PER_STAGE, SECONDS_IN_ALL = 15.0, 60.0  # of training steps; what a method does beside them is on few texts
BATCH_SIZE = 32


@dataclass(frozen=True)
class StageCost:
    """What one stage will cost.

    Attributes:
        stage: its name.
        parameters: of its model.
        examples: of an epoch: texts, or blocks of a corpus.
        steps: of the optimizer.
        seconds_per_step: as they were timed.
        seconds: of all steps, and of what the method does beside them.
    """

    stage: str
    parameters: int
    examples: int = 0
    steps: int = 0
    seconds_per_step: float = 0.0
    seconds: float = 0.0


def estimate(checked: Checked, callbacks: Sequence[TrainerCallback] = ()) -> list[dict[str, Any]]:
    """Estimate parameters, steps and rough seconds of every stage.

    Seconds come from a rehearsal: each stage trains random models of the planned shapes on a few batches of the task's
    own texts, of the usual length, with the schedule squeezed into these steps. It is bounded, and nothing is kept.

    Args:
        checked: by `check`.
        callbacks: of the Transformers Trainer, for every step of a recipe that is tried out.
    """
    return [dataclasses.asdict(cost) for cost in rehearse(checked, callbacks)[0]]


@contextmanager
def _quietly() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # a rehearsal's scores are no news
    try:
        yield
    finally:
        logging.disable(before)


def rehearse_fine_tuning(
    spec: ModelSpec,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    *,
    truncation: Truncation,
    training: Training | None,
    steps: Sequence[Method] = (),
    seconds: float = SECONDS_PER_STAGE,
) -> list[StageCost]:
    """Count the steps of one fine-tuning, and of steps after it, and time a few of each on a random model.

    Args:
        spec: of the model that is fine-tuned, for the task's objective.
        task: to fine-tune for.
        tokenizer: of the model.
        truncation: how texts are read.
        training: the fine-tuning; None where only the steps are of interest.
        steps: of compression.
        seconds: of training steps, for each stage at most.
    """
    with _quietly(), tempfile.TemporaryDirectory() as folder:
        job = Job(
            task=task.without_test(),
            objective=spec.objective,
            tokenizer=tokenizer,
            truncation=truncation,
            seed=0,
            folder=Path(folder),
        )
        model = _random_model(spec.config, job)
        costs = []
        if training is not None:
            costs.append(_rehearse_training("fine-tuning", model, job, training, seconds))
        return costs + _rehearse_steps(steps, spec, model, job, seconds)


def rehearse(
    checked: Checked, callbacks: Sequence[TrainerCallback] = ()
) -> tuple[list[StageCost], PreTrainedTokenizerBase]:
    """Return what `estimate` does, and the tokenizer that it was made with."""
    recipe = checked.recipe
    depths = 0 if recipe.model.scratch is None else len(recipe.model.scratch.growth)
    trained = sum(step.training is not None for step in recipe.steps) + (recipe.baseline is not None) + depths
    seconds = min(SECONDS_PER_STAGE, SECONDS_IN_ALL / max(1, trained))
    bound = "trying out a few steps of each stage, for %.0f s of training at most and %.0f s in all"
    logger.info(bound, seconds, seconds * trained)
    with _quietly():
        return _rehearse(checked, seconds, callbacks)


def _rehearse(
    checked: Checked, seconds: float, callbacks: Sequence[TrainerCallback]
) -> tuple[list[StageCost], PreTrainedTokenizerBase]:
    recipe, task, spec = checked.recipe, checked.task.without_test(), checked.specs[0]
    costs: list[StageCost] = []
    if recipe.model.scratch is not None:
        rows, tokenizer = rehearse_pretraining(recipe.model.scratch, task.splits[TRAIN], recipe.masking, seconds)
        costs = [StageCost(**row) for row in rows]
    else:
        tokenizer = load_tokenizer(str(recipe.model.source))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            task=task,
            objective=objective_of(task.kind, recipe.objective, recipe.masking),
            tokenizer=tokenizer,
            truncation=recipe.model.plain_truncation,
            seed=0,
            folder=Path(folder),
            callbacks=tuple(callbacks),
        )
        model = _random_model(spec.config, job)
        if recipe.baseline is not None:
            costs.append(_rehearse_training("baseline", model, job, recipe.baseline, seconds))
        costs += _rehearse_steps(recipe.steps, spec, model, job, seconds)
    return costs, tokenizer


def _rehearse_steps(
    steps: Sequence[Method], spec: ModelSpec, model: PreTrainedModel, job: Job, seconds: float
) -> list[StageCost]:
    """Try out steps that follow each other, the first of them on `model`, which is the baseline of all."""
    baseline, costs = (model, job.tokenizer), []
    job = dataclasses.replace(job, baseline=lambda: baseline)
    for number, step in enumerate(steps, 1):
        before = dataclasses.replace(spec, config=model.config, tokenizer=job.tokenizer, trimmed=False)
        cost, model, job = _rehearse_step(f"{number:02d}-{step.method}", step, before, model, job, seconds=seconds)
        costs.append(cost)
    return costs


def _rehearse_training(stage: str, model: PreTrainedModel, job: Job, training: Training, seconds: float) -> StageCost:
    examples = job.objective.count_examples(job)
    few, timed = _few(job, training.batch_size, stage, examples, seconds)
    train_on_task(model, few, _short(training), "rehearsal")
    return _training_cost(stage, model, examples, training, timed.seconds_per_step)


def _rehearse_step(
    stage: str, step: Method, spec: ModelSpec, model: PreTrainedModel, job: Job, *, seconds: float
) -> tuple[StageCost, PreTrainedModel, Job]:
    """Try out one step; also return a random model of the shape that it leaves, and the job with its tokenizer."""
    examples = job.objective.count_examples(job)
    batch_size = BATCH_SIZE if step.training is None else step.training.batch_size
    few, timed = _few(job, batch_size, stage, examples, seconds)
    after, estimated = step.plan_from_texts(spec, job)
    log = StepLog()
    if step.training is not None or not estimated:
        log = _squeezed(step).compress(model, few).log
    smaller = _random_model(after.config, job)
    cost = StageCost(stage, count_parameters(smaller), examples)
    if step.training is not None:
        cost = _training_cost(stage, smaller, examples, step.training, timed.seconds_per_step)
    used = step.examples_used(examples)
    # What a method does beside training grows with the examples that it looks at; so do the predictions of a teacher.
    beside = sum(estimated.values()) or sum((log.seconds or {}).values()) * used / (log.examples or used)
    taught = 0.0 if log.teacher is None else (log.teacher.seconds or 0.0) * examples / (log.teacher.examples or 1)
    cost = dataclasses.replace(cost, seconds=cost.seconds + beside + taught)
    return cost, smaller, dataclasses.replace(job, tokenizer=after.tokenizer or job.tokenizer)


def _training_cost(
    stage: str, model: PreTrainedModel, examples: int, training: Training, seconds_per_step: float
) -> StageCost:
    steps = planned_steps(examples, training)
    return StageCost(stage, count_parameters(model), examples, steps, seconds_per_step, steps * seconds_per_step)


def _few(job: Job, batch_size: int, name: str, examples: int, seconds: float) -> tuple[Job, Rehearsal]:
    """Cut the job's task down to a few batches of rows, as long as batches are on average, and time them."""
    rows = job.objective.few_rows(job, batch_size=batch_size, batches=REHEARSED_BATCHES, examples=examples)
    held_out = job.task.splits[DEVELOPMENT]
    few = {TRAIN: rows.train, DEVELOPMENT: held_out.select(range(min(rows.development, len(held_out))))}
    hashes = {part: f"{name}/{part}" for part in few}
    smaller = dataclasses.replace(job.task, splits=DatasetDict(few), hashes=hashes)
    timed, folder, cache = Rehearsal(seconds, rows.scale), job.folder / name, job.folder / "blocks"
    return dataclasses.replace(job, task=smaller, folder=folder, cache=cache, rehearsal=timed), timed


def _short(training: Training) -> Training:
    return dataclasses.replace(training, epochs=1.0, evaluations_per_epoch=1, keep="last", log_to="none")


def _squeezed(method: Method) -> Method:
    if method.training is None:
        return method
    return dataclasses.replace(method, training=_short(method.training))  # type: ignore[type-var]


def _random_model(config: PreTrainedConfig, job: Job) -> PreTrainedModel:
    torch.manual_seed(0)
    return job.objective.new_model(config, job.task.labels).to(default_device())
