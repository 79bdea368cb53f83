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
from datasets import DatasetDict
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from plankwise.core.runtime import default_device
from plankwise.data.blocks import ids_of
from plankwise.data.reading import Reading
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.encoder.cost import count_parameters
from plankwise.encoder.shapes import new_model
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.methods.method import Job, Method, train_on_task
from plankwise.study.pipeline import Checked
from plankwise.training.fit import Training, planned_steps
from plankwise.training.losses import masked_lm_loss, task_loss
from plankwise.training.pretraining import new_masked_lm, rehearse_pretraining

REHEARSED_BATCHES = 8
SAMPLED_TEXTS = 2000
BATCH_SIZE = 32


def estimate(checked: Checked) -> list[dict[str, Any]]:
    """Give parameters, steps and rough seconds of every stage.

    Seconds come from a rehearsal: each stage trains random models of the planned shapes on a few batches of the task's
    own texts, with the schedule squeezed into these steps. Nothing is kept.
    """
    return rehearse(checked)[0]


@contextmanager
def _quietly() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # a rehearsal's scores are no news
    try:
        yield
    finally:
        logging.disable(before)


def rehearse_fine_tuning(
    stage: str,
    config: PreTrainedConfig,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    reading: Reading,
    training: Training,
) -> dict[str, Any]:
    """Count the steps of one fine-tuning and time a few of them, on a random model of this configuration."""
    with _quietly(), tempfile.TemporaryDirectory() as folder:
        job = Job(task.without_test(), tokenizer, reading, task_loss(task.kind), 0, Path(folder))
        return _rehearse_training(stage, config, job, training)


def _rehearse_training(stage: str, config: PreTrainedConfig, job: Job, training: Training) -> dict[str, Any]:
    model, examples = _random_model(config, job.task), _examples(job)
    few = _few(job, training.batch_size, stage, examples)
    return _row(stage, model, examples, training, _seconds(model, few, training))


def rehearse(checked: Checked) -> tuple[list[dict[str, Any]], PreTrainedTokenizerBase]:
    """Give the rows of `estimate`, and the tokenizer that they were made with."""
    with _quietly():
        return _rehearse(checked)


def _rehearse(checked: Checked) -> tuple[list[dict[str, Any]], PreTrainedTokenizerBase]:
    recipe, task = checked.recipe, checked.task.without_test()
    rows: list[dict[str, Any]] = []
    if recipe.model.scratch is not None:
        rows, tokenizer = rehearse_pretraining(recipe.model.scratch, task.splits[TRAIN], recipe.masking)
    else:
        tokenizer = load_tokenizer(str(recipe.model.source))
    with tempfile.TemporaryDirectory() as folder:
        loss = masked_lm_loss if task.kind == "masked_lm" else task_loss(task.kind)
        job = Job(task, tokenizer, recipe.model.reading, loss, 0, Path(folder), masking=recipe.masking)
        examples = _examples(job)
        if recipe.baseline is not None:
            rows.append(_rehearse_training("baseline", checked.configs[0], job, recipe.baseline))
        for number, (step, config) in enumerate(zip(recipe.steps, checked.configs[1:], strict=True), 1):
            notes: dict[str, Any] = {}
            batch_size = BATCH_SIZE if step.training is None else step.training.batch_size
            few = dataclasses.replace(_few(job, batch_size, str(number), examples), note=notes.__setitem__)
            before = _readable(checked.configs[number - 1], tokenizer)
            _squeezed(step).compress(_random_model(before, task), few)
            rows.append(_step_row(f"{number:02d}-{step.method}", _random_model(config, task), examples, step, notes))
    return rows, tokenizer


def _readable(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """Give a plan of fewer tokens room for all those of the old tokenizer, which is what a rehearsal reads with."""
    config = copy.deepcopy(config)
    config.vocab_size = max(config.vocab_size, ids_of(tokenizer))
    return config


def _examples(job: Job) -> int:
    """Count what an epoch passes over; of a corpus, which is not tokenized for this, from a sample of its texts."""
    texts = job.task.splits[TRAIN]
    if job.task.kind != "masked_lm":
        return len(texts)
    some = texts.select(range(0, len(texts), math.ceil(len(texts) / SAMPLED_TEXTS)))
    tokens = sum(len(ids) + 1 for ids in job.tokenizer(some["text"][:], add_special_tokens=False)["input_ids"])
    return max(1, round(tokens * len(texts) / len(some) / (job.reading.max_length - 1)))


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
    stage: str, model: PreTrainedModel, examples: int, method: Method, notes: dict[str, Any]
) -> dict[str, Any]:
    """Describe one step by what its rehearsal noted; what it does beside training grows with the examples it uses."""
    row = {"stage": stage, "parameters": count_parameters(model), "steps": 0, "seconds_per_step": 0.0, "seconds": 0.0}
    if method.training is not None:
        per_step = notes["training"]["train_seconds"] / notes["training"]["steps"]
        row = _row(stage, model, examples, method.training, per_step)
    used = min(examples, getattr(method, "examples", examples))
    beside = sum(notes.get("seconds", {}).values()) * used / notes.get("examples", used)
    taught = notes.get("teacher", {})
    answered = taught.get("seconds", 0.0) * examples / taught.get("examples", 1)
    return {**row, "seconds": row["seconds"] + beside + answered}


def _few(job: Job, batch_size: int, name: str, examples: int) -> Job:
    """Cut the job's task down to a few batches of seeded random rows."""
    task, train = job.task, job.task.splits[TRAIN].shuffle(seed=0)
    rows = math.ceil(REHEARSED_BATCHES * batch_size * len(train) / examples)  # a text of a corpus is several examples
    scored = rows if task.kind == "masked_lm" else 2  # these have to fill a block
    few = {
        TRAIN: train.select(range(min(len(train), rows))),
        DEVELOPMENT: task.splits[DEVELOPMENT].select(range(min(scored, len(task.splits[DEVELOPMENT])))),
    }
    hashes = {part: f"{name}/{part}" for part in few}
    smaller = dataclasses.replace(task, splits=DatasetDict(few), hashes=hashes)
    return dataclasses.replace(job, task=smaller, folder=job.folder / name, cache=job.folder / "blocks")


def _seconds(model: PreTrainedModel, job: Job, training: Training) -> float:
    fitted = train_on_task(model, job, _short(training), "rehearsal")
    return fitted.train_seconds / fitted.steps


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
