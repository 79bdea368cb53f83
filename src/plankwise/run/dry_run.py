"""What a recipe will cost, before anything is trained: steps counted, seconds rehearsed on a few real batches."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from plankwise.core.hardware import default_device
from plankwise.data.batching.examples import encode, lengths_of
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.data.truncation import Truncation
from plankwise.encoder.cost import count_parameters
from plankwise.encoder.shapes import new_model
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.methods.method import Job, Method, train_on_task
from plankwise.run.pipeline import Checked
from plankwise.training.callbacks import Rehearsal
from plankwise.training.fit import Training, planned_steps
from plankwise.training.objectives.losses import masked_lm_loss, task_loss
from plankwise.training.pretraining.pretrain import new_masked_lm, rehearse_pretraining
from plankwise.training.trainer import LengthGrouped

logger = logging.getLogger(__name__)
REHEARSED_BATCHES = 6
SECONDS_PER_STAGE, SECONDS_IN_ALL = 15.0, 60.0  # of training steps; what a method does beside them is on few texts
SAMPLED_TEXTS = 2000
BATCH_SIZE = 32


def estimate(checked: Checked) -> list[dict[str, Any]]:
    """Give parameters, steps and rough seconds of every stage.

    Seconds come from a rehearsal: each stage trains random models of the planned shapes on a few batches of the task's
    own texts, of the usual length, with the schedule squeezed into these steps. It is bounded, and nothing is kept.
    """
    return rehearse(checked)[0]


@contextmanager
def _quietly() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # a rehearsal's scores are no news
    try:
        yield
    finally:
        logging.disable(before)


def rehearse_fine_tuning(
    stage: str,
    config: PreTrainedConfig,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    truncation: Truncation,
    training: Training,
) -> dict[str, Any]:
    """Count the steps of one fine-tuning and time a few of them, on a random model of this configuration."""
    with _quietly(), tempfile.TemporaryDirectory() as folder:
        job = Job(task.without_test(), tokenizer, truncation, task_loss(task.kind), 0, Path(folder))
        return _rehearse_training(stage, _random_model(config, task), job, training, SECONDS_PER_STAGE)


def _rehearse_training(
    stage: str, model: PreTrainedModel, job: Job, training: Training, seconds: float
) -> dict[str, Any]:
    examples = _examples(job)
    few, timed = _few(job, training.batch_size, stage, examples, seconds)
    train_on_task(model, few, _short(training), "rehearsal")
    return _row(stage, model, examples, training, timed.seconds_per_step)


def rehearse(checked: Checked) -> tuple[list[dict[str, Any]], PreTrainedTokenizerBase]:
    """Give the rows of `estimate`, and the tokenizer that they were made with."""
    recipe = checked.recipe
    depths = 0 if recipe.model.scratch is None else len(recipe.model.scratch.growth)
    trained = sum(step.training is not None for step in recipe.steps) + (recipe.baseline is not None) + depths
    seconds = min(SECONDS_PER_STAGE, SECONDS_IN_ALL / max(1, trained))
    bound = "trying out a few steps of each stage, for %.0f s of training at most and %.0f s in all"
    logger.info(bound, seconds, seconds * trained)
    with _quietly():
        return _rehearse(checked, seconds)


def _rehearse(checked: Checked, seconds: float) -> tuple[list[dict[str, Any]], PreTrainedTokenizerBase]:
    recipe, task = checked.recipe, checked.task.without_test()
    rows: list[dict[str, Any]] = []
    if recipe.model.scratch is not None:
        rows, tokenizer = rehearse_pretraining(recipe.model.scratch, task.splits[TRAIN], recipe.masking, seconds)
    else:
        tokenizer = load_tokenizer(str(recipe.model.source))
    with tempfile.TemporaryDirectory() as folder:
        loss = masked_lm_loss if task.kind == "masked_lm" else task_loss(task.kind)
        job = Job(task, tokenizer, recipe.model.plain_truncation, loss, 0, Path(folder), masking=recipe.masking)
        model = _random_model(checked.configs[0], task)
        if recipe.baseline is not None:
            rows.append(_rehearse_training("baseline", model, job, recipe.baseline, seconds))
        for number, step in enumerate(recipe.steps, 1):
            row, model, job = _rehearse_step(f"{number:02d}-{step.method}", step, model, job, seconds)
            rows.append(row)
    return rows, tokenizer


def _rehearse_step(
    stage: str, step: Method, model: PreTrainedModel, job: Job, seconds: float
) -> tuple[dict[str, Any], PreTrainedModel, Job]:
    """Try out one step; also give a random model of the shape that it leaves, and the job with its tokenizer."""
    examples, notes = _examples(job), dict[str, Any]()
    batch_size = BATCH_SIZE if step.training is None else step.training.batch_size
    few, timed = _few(job, batch_size, stage, examples, seconds)
    plan_on = getattr(step, "plan_on", None)  # of methods whose plan hangs on the texts
    if plan_on is None:
        config = step.plan(model.config)
    else:
        config, tokenizer, counting = plan_on(model.config, job)
        notes["seconds"] = {"counting": counting}
    if plan_on is None or step.training is not None:
        _squeezed(step).compress(model, dataclasses.replace(few, note=notes.__setitem__))
    after = _random_model(config, job.task)
    row = _step_row(stage, after, examples, step, notes, timed.seconds_per_step)
    return row, after, job if plan_on is None else dataclasses.replace(job, tokenizer=tokenizer)


def _examples(job: Job) -> int:
    """Count what an epoch passes over; of a corpus, which is not tokenized for this, from a sample of its texts."""
    texts = job.task.splits[TRAIN]
    if job.task.kind != "masked_lm":
        return len(texts)
    some = texts.select(range(0, len(texts), math.ceil(len(texts) / SAMPLED_TEXTS)))
    tokens = sum(len(ids) + 1 for ids in job.tokenizer(some["text"][:], add_special_tokens=False)["input_ids"])
    return max(1, round(tokens * len(texts) / len(some) / (job.truncation.max_length - 1)))


def _row(stage: str, model: PreTrainedModel, examples: int, training: Training, per_step: float) -> dict[str, Any]:
    steps = planned_steps(examples, training)
    return {
        "stage": stage,
        "parameters": count_parameters(model),
        "steps": steps,
        "seconds_per_step": per_step,
        "seconds": steps * per_step,
    }


def _step_row(
    stage: str, model: PreTrainedModel, examples: int, method: Method, notes: dict[str, Any], per_step: float
) -> dict[str, Any]:
    """Describe one step by what its rehearsal noted; what it does beside training grows with the examples it uses."""
    row = {"stage": stage, "parameters": count_parameters(model), "steps": 0, "seconds_per_step": 0.0, "seconds": 0.0}
    if method.training is not None:
        row = _row(stage, model, examples, method.training, per_step)
    used = min(examples, getattr(method, "examples", examples))
    beside = sum(notes.get("seconds", {}).values()) * used / notes.get("examples", used)
    taught = notes.get("teacher", {})
    answered = taught.get("seconds", 0.0) * examples / taught.get("examples", 1)
    return {**row, "seconds": row["seconds"] + beside + answered}


def _few(job: Job, batch_size: int, name: str, examples: int, seconds: float) -> tuple[Job, Rehearsal]:
    """Cut the job's task down to a few batches of rows, as long as batches are on average, and time them."""
    scale, task, train = 1.0, job.task, job.task.splits[TRAIN].shuffle(seed=0)
    if task.kind == "masked_lm":  # a text of a corpus is several examples, all of a length; these have to fill a block
        rows = min(len(train), math.ceil(REHEARSED_BATCHES * batch_size * len(train) / examples))
        chosen, scored = list(range(rows)), rows
    else:
        chosen, scale = _usual(train.select(range(min(len(train), SAMPLED_TEXTS))), job, batch_size)
        scored = 2
    few = {
        TRAIN: train.select(chosen),
        DEVELOPMENT: task.splits[DEVELOPMENT].select(range(min(scored, len(task.splits[DEVELOPMENT])))),
    }
    hashes = {part: f"{name}/{part}" for part in few}
    smaller = dataclasses.replace(task, splits=DatasetDict(few), hashes=hashes)
    timed, folder, cache = Rehearsal(seconds, scale), job.folder / name, job.folder / "blocks"
    return dataclasses.replace(job, task=smaller, folder=folder, cache=cache, rehearsal=timed), timed


def _usual(texts: Dataset, job: Job, batch_size: int) -> tuple[list[int], float]:
    """Choose rows that make up batches of about the mean number of padded tokens, as training would batch them.

    Also give how many times as many tokens the mean has: where texts are short or long, no batch is near it.
    """
    lengths = lengths_of(encode(texts, job.tokenizer, job.truncation))
    order = list(LengthGrouped(lengths, batch_size, seed=0))
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    padded = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
    mean = sum(padded) / len(padded)
    nearest = sorted(range(len(batches)), key=lambda at: abs(padded[at] - mean))[:REHEARSED_BATCHES]
    return [row for at in nearest for row in batches[at]], mean * len(nearest) / sum(padded[at] for at in nearest)


def _short(training: Training) -> Training:
    return dataclasses.replace(training, epochs=1.0, evaluations_per_epoch=1, keep="last", log_to="none")


def _squeezed(method: Method) -> Method:
    if method.training is None:
        return method
    return dataclasses.replace(method, training=_short(method.training))  # type: ignore[type-var]


def _random_model(config: PreTrainedConfig, task: Task) -> PreTrainedModel:
    config = copy.deepcopy(config)
    torch.manual_seed(0)
    if task.kind == "masked_lm":
        return new_masked_lm(config).to(default_device())
    config.num_labels = len(task.labels)
    model = new_model(AutoModelForSequenceClassification._model_mapping[type(config)], config).to(default_device())
    assert isinstance(model, PreTrainedModel)
    return model
