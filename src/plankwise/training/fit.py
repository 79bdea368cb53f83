"""The training loop: the Transformers Trainer, made exact.

Two things are added to it. Randomness of a step is a function of (seed, step, rank) alone, and the order of batches one
of (seed, epoch), so a killed run that goes on from a checkpoint ends at the weights of one that was never killed. And a
checkpoint counts only once it is whole (`checkpoints.py`). `fit` knows no method: what a method needs during training
it does in `on_step`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import pickle  # only for its error: nothing here unpickles
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

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
from plankwise.training.trainer import DeterministicTrainer, LengthGrouped, OnStep, Order, TrainingData

logger = logging.getLogger(__name__)
CURVES = "curves"
STEPS_PER_LOSS = 20  # at most: lines of progress show the loss of so many steps


@settings
class Training:
    """Settings of one training.

    Attributes:
        epochs: passes over the training split; may be a fraction.
        batch_size: texts per optimizer step, over all processes and accumulated batches together.
        gradient_accumulation: how many smaller batches make up one step.
        learning_rate: the peak, reached after warm-up.
        warmup: share of the steps over which the rate rises from 0.
        learning_rate_schedule: how the rate falls after that, to 0 or not at all.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        evaluations_per_epoch: how often the development split is scored and a checkpoint is written; over the whole
            training where that is less than an epoch.
        keep: which weights are kept, those of the best evaluation or the last ones.
        early_stopping_patience: stop after this many evaluations without a better score; null never stops early.
        precision: `auto` trains in bf16 (autocast; weights stay fp32) where the machine multiplies it natively.
        log_to: where training curves go, besides the log: TensorBoard's files in `curves/` beside the model, or the
            MLflow server that its own variables name.
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


@dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Attributes:
        steps: optimizer steps run, over all resumed parts.
        planned_steps: steps that the settings ask for; more than `steps` after early stopping.
        train_seconds: time spent in these steps, evaluation and checkpoints not included.
        best_step: step whose weights the model holds now.
        history: one `{"step", "score"}` per evaluation.
        precision: `bf16` or `fp32`.
    """

    steps: int
    planned_steps: int
    train_seconds: float
    best_step: int
    history: list[dict[str, float]]
    precision: str


def planned_steps(examples: int, training: Training) -> int:
    """Count the optimizer steps that `training` asks for on this many examples."""
    return max(1, math.ceil(math.ceil(examples / training.batch_size) * training.epochs))


def fit(
    model: PreTrainedModel,
    material: TrainingData,
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
    """Train `model` in place; go on from the newest whole checkpoint in `folder` if there is one.

    Only parameters with `requires_grad` are optimized and saved in checkpoints.

    Args:
        model: called with each batch; its outputs go to the loss.
        material: what it learns from.
        training: settings.
        seed: of batch order, dropout and whatever `material.prepare` draws.
        folder: for checkpoints; one training a folder.
        on_step: called as `(step, planned_steps)` before each step.
        select_from: share of the steps before which an evaluation is recorded, but can neither be the best nor count
            towards early stopping. The last step is always evaluated.
        progress: title of the progress bar; without it none is drawn, and lines of the log name the folder.
        rehearsal: times steps that are only tried out; nothing is scored or saved then.
        callbacks: of the Transformers Trainer, beside its own.

    Raises:
        CheckpointError: if a checkpoint is damaged or belongs to another training.
        TrainingError: if the loss is not a number.
    """
    check_training(training)
    total = planned_steps(len(material.examples), training)
    title = progress or folder.name
    logger.info("%s: %d steps on %d examples", title, total, len(material.examples))
    stopwatch, bar = Stopwatch(), ProgressBar(title, shown=progress is not None)
    if rehearsal is not None:
        material = dataclasses.replace(material, evaluate=None)
    trainer = _trainer(model, material, training, total, seed, folder, select_from, saved=rehearsal is None)
    hooks = [hook for hook in (material.at_step, on_step) if hook is not None]
    for callback in (Steps(seed, total, hooks), stopwatch, LossMonitor(), bar, rehearsal, *callbacks):
        if callback is not None:
            trainer.add_callback(callback)
    checkpoint = checkpoints.newest(folder, _fingerprint(material, training, seed))
    wait_for_everyone()
    if checkpoint is not None and checkpoints.is_finished(checkpoint):
        trainer.restore_finished(checkpoint)
        return _summary(trainer, total)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{checkpoint} holds a pickle that torch's weights-only reader refuses; "
            "delete it to resume from an earlier one"
        ) from None
    finally:
        bar.close()
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    vars(model).pop("forward", None)  # it was bound to this very model; a deep copy would go on calling the original
    return _summary(trainer, total)


def _trainer(
    model: PreTrainedModel,
    material: TrainingData,
    training: Training,
    total: int,
    seed: int,
    folder: Path,
    select_from: float,
    saved: bool,
) -> DeterministicTrainer:
    scored = material.evaluate is not None
    per_epoch = math.ceil(len(material.examples) / training.batch_size)
    order = _order(material, training, seed)
    trainer = DeterministicTrainer(
        material,
        order,
        select_from * total,
        _fingerprint(material, training, seed),
        model=model,
        args=_arguments(training, per_epoch, total, seed, folder, scored, saved),
        eval_dataset=[material.examples[0]],
        callbacks=[Epochs(order, per_epoch)],
    )
    trainer.remove_callback(PrinterCallback)
    if training.early_stopping_patience is not None and scored:
        trainer.add_callback(EarlyStopping(training.early_stopping_patience, first_step=math.ceil(select_from * total)))
    if training.log_to == "tensorboard":
        trainer.add_callback(curves_callback(folder / CURVES))
    return trainer


def _order(material: TrainingData, training: Training, seed: int) -> Order:
    if material.equal_lengths:
        return Order(len(material.examples), seed)
    return LengthGrouped(lengths_of(material.examples), training.batch_size, seed)


def _fingerprint(material: TrainingData, training: Training, seed: int) -> dict[str, Any]:
    return {"training": to_plain(training), "seed": seed, "examples": len(material.examples)}


def _summary(trainer: DeterministicTrainer, total: int) -> TrainingResult:
    """Collect what the training did, over all resumed parts."""
    state = trainer.state
    scores = [entry for entry in state.log_history if "eval_score" in entry]
    best = state.best_global_step if trainer.args.load_best_model_at_end else None
    # The Trainer replaces callbacks whose state it restores, so the stopwatch that ran is looked up.
    stopwatch = next(each for each in trainer.callback_handler.callbacks if isinstance(each, Stopwatch))
    return TrainingResult(
        steps=state.global_step,
        planned_steps=total,
        train_seconds=stopwatch.seconds,
        best_step=best or state.global_step,
        history=[{"step": entry["step"], "score": entry["eval_score"]} for entry in scores],
        precision="bf16" if trainer.args.bf16 else "fp32",
    )


def check_training(training: Training) -> None:
    """Refuse settings that cannot work here, before anything is trained.

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
    """Tell whether this training runs in bf16 on this machine."""
    return training.precision == "bf16" or (training.precision == "auto" and bf16_is_fast(default_device()))


def _arguments(
    training: Training, per_epoch: int, total: int, seed: int, folder: Path, scored: bool, saved: bool
) -> TrainingArguments:
    device = default_device()
    parts = training.gradient_accumulation * process_count()
    interval = math.ceil(min(per_epoch, total) / training.evaluations_per_epoch)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=training.batch_size // parts,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        warmup_steps=round(training.warmup * total),
        lr_scheduler_type=_SCHEDULERS[training.learning_rate_schedule],
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        bf16=uses_bf16(training),
        use_cpu=device.type == "cpu",
        eval_strategy="steps" if scored else "no",
        eval_steps=interval,
        save_strategy="steps" if saved else "no",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=scored and training.keep == "best",
        metric_for_best_model="judged" if scored else None,
        greater_is_better=True if scored else None,
        logging_steps=max(1, min(total // 50, STEPS_PER_LOSS)),
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        report_to="mlflow" if training.log_to == "mlflow" else "none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        seed=seed % 2**32,
    )


_SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
