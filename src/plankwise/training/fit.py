"""The training loop: the Transformers Trainer, made deterministic.

It adds two things. Randomness of a step is a function of (seed, step, rank) alone, and the order of batches one of
(seed, epoch), so a killed run that resumes from a checkpoint ends at the weights of one that was never killed. And a
checkpoint counts only once it is complete (`checkpoints.py`). `fit` knows no method: a method acts during training
through `on_step`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import pickle  # only for its error: nothing here unpickles
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainingArguments

from plankwise.core.distributed import process_count, wait_for_everyone
from plankwise.core.errors import CheckpointError, RecipeError
from plankwise.core.hardware import bf16_is_fast, default_device
from plankwise.core.numbers import BatchSize, Bounds, Count, LearningRate, LessThanAll, Passes
from plankwise.core.packages import require
from plankwise.core.recipe import settings, to_plain
from plankwise.data.batching.examples import lengths_of
from plankwise.training import checkpoints
from plankwise.training.callbacks import (
    EarlyStopping,
    Epochs,
    LossMonitor,
    Rehearsal,
    Steps,
    Stopwatch,
    curves_callback,
)
from plankwise.training.progress import ProgressBar
from plankwise.training.trainer import (
    SELECTION_METRIC,
    DeterministicTrainer,
    LengthGrouped,
    OnStep,
    Order,
    TrainingData,
    TrainingResult,
)

logger = logging.getLogger(__name__)
CURVES = "curves"
STEPS_PER_LOSS = 20  # at most: a line of progress shows the mean loss of that many steps


@settings
class Training:
    """Settings of one training.

    Attributes:
        epochs: passes over the training split; may be a fraction.
        batch_size: texts per optimizer step, over all processes and accumulated batches together.
        gradient_accumulation: number of smaller batches that make up one step.
        learning_rate: the peak, reached after warm-up.
        warmup: share of the steps over which the rate rises from 0.
        learning_rate_schedule: how the rate falls after that, to 0 or not at all.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        evaluations_per_epoch: how often the development split is scored and a checkpoint is written; over the whole
            training if that is less than an epoch.
        keep: which weights are kept, those of the best evaluation or the last ones.
        early_stopping_patience: number of evaluations without a better score after which to stop; null never does.
        precision: `auto` trains in bf16 (autocast; weights stay fp32) where the machine multiplies it natively.
        log_to: where training curves go, besides the log: TensorBoard's files in `curves/` beside the model, or the
            MLflow server that its environment variables name.
    """

    epochs: Passes = 3.0
    batch_size: BatchSize = 32
    gradient_accumulation: BatchSize = 1
    learning_rate: LearningRate = 5e-5
    warmup: LessThanAll = 0.1
    learning_rate_schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Annotated[float, Bounds(0, 100, "it would erase the weights")] = 0.01
    max_grad_norm: Annotated[float, Bounds(0, 1e12, "no gradient is so long", above=True)] = 1.0
    evaluations_per_epoch: Count = 1
    keep: Literal["best", "last"] = "best"
    early_stopping_patience: Count | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    log_to: Literal["none", "tensorboard", "mlflow"] = "none"


def planned_steps(examples: int, training: Training) -> int:
    """Return the number of optimizer steps that `training` takes on this many examples."""
    return max(1, math.ceil(math.ceil(examples / training.batch_size) * training.epochs))


def fit(
    model: PreTrainedModel,
    data: TrainingData,
    training: Training,
    *,
    seed: int,
    folder: Path,
    on_step: OnStep | None = None,
    select_from: float = 0.0,
    progress: str | None = None,
    rehearsal: Rehearsal | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainingResult:
    """Train `model` in place; resume from the newest complete checkpoint in `folder` if there is one.

    Only parameters with `requires_grad` are optimized and saved.

    Args:
        model: called with each batch; its outputs go to the loss.
        data: what it learns from.
        training: settings.
        seed: of batch order, dropout and all that `data.prepare` draws.
        folder: for checkpoints; one training a folder.
        on_step: called as `(step, planned_steps)` before each step.
        select_from: share of the steps before which an evaluation is recorded, but can neither be the best nor count
            towards early stopping. The last step is always evaluated.
        progress: title of the progress bar; without it there is none, and lines of the log name the folder.
        rehearsal: times a few steps for a dry run; nothing is scored or saved then.
        callbacks: of the Transformers Trainer, beside its own.

    Raises:
        CheckpointError: if a checkpoint is damaged or belongs to another training.
        TrainingError: if the loss is not a number.
    """
    check_training(training)
    total, title = planned_steps(len(data.examples), training), progress or folder.name
    logger.info("%s: %d steps on %d examples", title, total, len(data.examples))
    data = data if rehearsal is None else dataclasses.replace(data, evaluate=None)
    bar, hooks = ProgressBar(title, shown=progress is not None), [each for each in (data.at_step, on_step) if each]
    every = [Steps(seed, total, hooks), Stopwatch(), LossMonitor(), bar, *filter(None, [rehearsal]), *callbacks]
    saves = rehearsal is None
    trainer = _trainer(model, data, training, every, seed=seed, folder=folder, select_from=select_from, saves=saves)
    checkpoint = checkpoints.newest(folder, trainer.fingerprint)
    wait_for_everyone()
    if checkpoint is not None and checkpoints.is_finished(checkpoint):
        trainer.restore_finished(checkpoint)
    else:
        with closing(bar):
            _train(trainer, checkpoint)
    return trainer.result(total)


def _trainer(
    model: PreTrainedModel,
    data: TrainingData,
    training: Training,
    callbacks: Sequence[TrainerCallback],
    *,
    seed: int,
    folder: Path,
    select_from: float,
    saves: bool,
) -> DeterministicTrainer:
    total, scores = planned_steps(len(data.examples), training), data.evaluate is not None
    per_epoch = math.ceil(len(data.examples) / training.batch_size)
    if data.equal_lengths:
        order = Order(len(data.examples), seed)
    else:
        order = LengthGrouped(lengths_of(data.examples), training.batch_size, seed)
    first: list[TrainerCallback] = [Epochs(order, per_epoch)]
    if training.early_stopping_patience is not None and scores:
        first.append(EarlyStopping(training.early_stopping_patience, first_step=math.ceil(select_from * total)))
    if training.log_to == "tensorboard":
        first.append(curves_callback(folder / CURVES))
    trainer = DeterministicTrainer(
        data,
        order,
        first_selectable_step=select_from * total,
        fingerprint={"training": to_plain(training), "seed": seed, "examples": len(data.examples)},
        model=model,
        args=_arguments(training, per_epoch, total, seed=seed, folder=folder, scores=scores, saves=saves),
        eval_dataset=[data.examples[0]],  # the Trainer wants one; `data.evaluate` scores instead
        callbacks=[*first, *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _train(trainer: DeterministicTrainer, checkpoint: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{checkpoint} holds a pickle that torch's weights-only reader refuses; "
            "delete it to resume from an earlier one"
        ) from None
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    # Accelerate bound the autocast wrapper to this model: a deep copy would call the original.
    trainer.model.__dict__.pop("forward", None)


def check_training(training: Training) -> None:
    """Refuse settings that cannot work on this machine, before anything is trained.

    Raises:
        RecipeError: if the batch does not divide among processes, or a logger is not installed.
    """
    parts = training.gradient_accumulation * process_count()
    if training.batch_size % parts:
        raise RecipeError(
            f"batch_size {training.batch_size} does not divide into {parts} parts "
            "(processes times gradient_accumulation)"
        )
    if training.log_to != "none":
        require(f"log_to {training.log_to}", training.log_to, error=RecipeError)


def uses_bf16(training: Training) -> bool:
    """Return whether this training runs in bf16 on this machine."""
    return training.precision == "bf16" or (training.precision == "auto" and bf16_is_fast(default_device()))


def _arguments(
    training: Training, per_epoch: int, total: int, *, seed: int, folder: Path, scores: bool, saves: bool
) -> TrainingArguments:
    device = default_device()
    interval = math.ceil(min(per_epoch, total) / training.evaluations_per_epoch)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=training.batch_size // (training.gradient_accumulation * process_count()),
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        warmup_steps=round(training.warmup * total),
        lr_scheduler_type=_SCHEDULERS[training.learning_rate_schedule],
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        bf16=uses_bf16(training),
        use_cpu=device.type == "cpu",
        eval_strategy="steps" if scores else "no",
        eval_steps=interval,
        save_strategy="steps" if saves else "no",
        save_steps=interval,
        save_total_limit=2,  # the best one and the newest
        load_best_model_at_end=scores and training.keep == "best",
        metric_for_best_model=SELECTION_METRIC if scores else None,
        greater_is_better=True if scores else None,
        logging_steps=max(1, min(total // 50, STEPS_PER_LOSS)),
        logging_nan_inf_filter=False,  # it would hide the loss that `LossMonitor` looks for
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        report_to="mlflow" if training.log_to == "mlflow" else "none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        seed=seed % 2**32,  # NumPy's seeds have 32 bits
    )


_SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
