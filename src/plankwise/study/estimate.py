"""What a recipe will cost, before anything is trained: steps counted, seconds rehearsed on a few real batches."""

from __future__ import annotations

import copy
import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from plankwise.core.runtime import default_device
from plankwise.data.task import DEVELOPMENT, TRAIN, Task
from plankwise.encoder.checkpoint import load_tokenizer
from plankwise.encoder.cost import count_parameters
from plankwise.methods.method import Job, Method, train_on_task
from plankwise.study.pipeline import Checked
from plankwise.training.fit import Training, planned_steps
from plankwise.training.losses import task_loss
from plankwise.training.pretraining import rehearse_pretraining, train_tokenizer

REHEARSED_BATCHES = 8


def estimate(checked: Checked) -> list[dict[str, Any]]:
    """Give parameters, steps and rough seconds of every stage.

    Seconds come from a rehearsal: each stage trains random models of the planned shapes on a few batches of the task's
    own texts, with the schedule squeezed into these steps. Nothing is kept.
    """
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # a rehearsal's scores are no news
    try:
        return _estimate(checked)
    finally:
        logging.disable(before)


def _estimate(checked: Checked) -> list[dict[str, Any]]:
    recipe, task = checked.recipe, checked.task.without_test()
    texts = task.splits[TRAIN]["text"][:]
    rows = []
    if recipe.model.scratch is not None:
        scratch = recipe.model.scratch
        tokenizer = train_tokenizer(texts, scratch.vocabulary, scratch.lowercase, scratch.positions)
        rows += rehearse_pretraining(scratch, texts, tokenizer)
    else:
        tokenizer = load_tokenizer(str(recipe.model.source))
    examples = len(texts)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            _few(task, recipe.baseline.batch_size),
            tokenizer,
            recipe.model.max_length,
            task_loss(task.kind),
            0,
            Path(folder) / "baseline",
        )
        model = _random_model(checked.configs[0], task)
        rows.append(_row("baseline", model, examples, recipe.baseline, _seconds(model, job, recipe.baseline)))
        for number, (step, config) in enumerate(zip(recipe.steps, checked.configs[1:], strict=True), 1):
            notes: dict[str, Any] = {}
            job = dataclasses.replace(
                job,
                task=_few(task, step.training.batch_size),
                note=notes.__setitem__,
                folder=Path(folder) / str(number),
            )
            _squeezed(step).compress(model, job)
            model = _random_model(config, task)
            per_step = notes["training"]["train_seconds"] / notes["training"]["steps"]
            rows.append(_row(f"{number:02d}-{step.method}", model, examples, step.training, per_step))
    return rows


def _row(stage: str, model: PreTrainedModel, examples: int, training: Training, per_step: float) -> dict[str, Any]:
    steps = planned_steps(examples, training)
    return {
        "stage": stage,
        "parameters": count_parameters(model),
        "steps": steps,
        "seconds_per_step": per_step,
        "seconds": steps * per_step,
    }


def _few(task: Task, batch_size: int) -> Task:
    """Cut the task down to a few batches of seeded random rows."""
    train = task.splits[TRAIN].shuffle(seed=0)
    few = {
        TRAIN: train.select(range(min(len(train), REHEARSED_BATCHES * batch_size))),
        DEVELOPMENT: task.splits[DEVELOPMENT].select(range(min(2, len(task.splits[DEVELOPMENT])))),
    }
    return dataclasses.replace(task, splits=DatasetDict(few))


def _seconds(model: PreTrainedModel, job: Job, training: Training) -> float:
    fitted = train_on_task(model, job, _short(training), "rehearsal")
    return fitted.train_seconds / fitted.steps


def _short(training: Training) -> Training:
    return dataclasses.replace(training, epochs=1.0, evaluations_per_epoch=1, keep="last", log_to="none")


def _squeezed(method: Method) -> Method:
    return dataclasses.replace(method, training=_short(method.training))  # type: ignore[type-var]


def _random_model(config: PreTrainedConfig, task: Task) -> PreTrainedModel:
    config = copy.deepcopy(config)
    config.num_labels = len(task.labels)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).to(default_device())
    assert isinstance(model, PreTrainedModel)
    return model
