"""The one way in which methods train: on the job's task, for its objective, with or without a teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from torch import nn
from transformers import PreTrainedModel

from plankwise.core.cache import cache_folder
from plankwise.core.step_log import StepLog, TeacherLog, TrainingLog
from plankwise.data.batching.examples import Example, encode
from plankwise.data.task import TRAIN
from plankwise.data.truncation import warn_if_other
from plankwise.encoder.anatomy import layers_of
from plankwise.encoder.quantized import refuse_quantized
from plankwise.encoder.stored_truncation import stored_truncation
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.distillation.distillation_loss import Supervision, distillation
from plankwise.training.distillation.teacher import find_teacher
from plankwise.training.fit import Training, fit, uses_bf16
from plankwise.training.objectives.objective import Job
from plankwise.training.trainer import OnStep


def train_on_task(
    model: PreTrainedModel,
    job: Job,
    training: Training,
    title: str,
    *,
    on_step: OnStep | None = None,
    select_from: float = 0.0,
    teacher: DistillationConfig | None = None,
    given: PreTrainedModel | None = None,
    layers: Sequence[nn.Module] | None = None,
) -> StepLog:
    """Train `model` in place on the job's task, and return what was done; development selects the weights.

    Args:
        model: the network to train.
        job: what it is trained on.
        training: settings.
        title: of the progress bar.
        on_step: as in `fit`.
        select_from: as in `fit`.
        teacher: what is learned beside the task's own loss.
        given: the model passed to the method, for a teacher that is this one, or where there is no baseline.
        layers: of `model` that learn from the teacher, if they are not its own; in each step those of them that run.

    Raises:
        MethodError: if the teacher cannot teach this model, or it is quantized, before anything is trained.
    """
    refuse_quantized(model.config)
    distill = partial(_distillation, model, job, training, teacher, given, layers)
    with job.objective.training_data(model, job, distill) as prepared:
        result = fit(
            model,
            prepared.data,
            training,
            seed=job.seed,
            folder=job.folder,
            on_step=on_step,
            select_from=select_from,
            progress=title if job.progress else None,
            rehearsal=job.rehearsal,
            callbacks=job.callbacks,
        )
    taught = prepared.supervision.log
    return StepLog(
        training=TrainingLog(**dataclasses.asdict(result)),
        teacher=None if taught is None else TeacherLog(**taught.as_dict()),
        texts_read=prepared.texts_read,
    )


def _distillation(
    model: PreTrainedModel,
    job: Job,
    training: Training,
    config: DistillationConfig | None,
    given: PreTrainedModel | None,
    layers: Sequence[nn.Module] | None,
    examples: Sequence[Example] | None,
) -> AbstractContextManager[Supervision]:
    """Open the distillation; without a teacher, the task's own loss is all there is."""
    loss = job.objective.loss(job.task)
    if config is None:
        return nullcontext(Supervision(loss))
    objective = job.objective
    teacher = find_teacher(
        config,
        model,
        job.tokenizer,
        load=objective.load_trained,
        has_labels=objective.has_labels,
        given=given,
        baseline=job.baseline,
    )
    if not objective.reads_blocks:
        warn_if_other(job.truncation, stored_truncation(teacher.model.config), f"the teacher {teacher.name}")
    if examples is not None and not teacher.shares_tokens:
        examples = encode(job.task.splits[TRAIN], teacher.tokenizer, job.truncation)
    return distillation(
        model,
        list(layers_of(model)) if layers is None else layers,
        teacher,
        config,
        task_loss=loss,
        logits_loss=objective.logits_loss,
        examples=examples,
        pooling=None if job.truncation.windows is None else job.truncation.windows.pooling,
        cache=cache_folder() / "teachers" if job.cache is None else job.cache,
        seed=job.seed,
        bf16=uses_bf16(training),
    )
