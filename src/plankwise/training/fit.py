"""The training loop: the Transformers Trainer, made exact.

Two things are added to it. Randomness of a step is a function of (seed, step, rank) alone, and the order of batches one
of (seed, epoch), so a killed run that goes on from a checkpoint ends at the weights of one that was never killed. And a
checkpoint counts only once it is whole (`checkpoints.py`). `fit` knows no method: what a method needs during training
it does in `on_step`.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from plankwise.core.errors import RecipeError
from plankwise.core.recipe import settings, to_plain
from plankwise.core.runtime import bf16_is_fast, default_device, mix_seed, wait_for_everyone
from plankwise.data.encoding import Batch, lengths_of
from plankwise.training import checkpoints
from plankwise.training.callbacks import Patience, Steps, Stopwatch, Watch, curves_callback
from plankwise.training.losses import Loss
from plankwise.training.progress import ProgressBar

logger = logging.getLogger(__name__)
CURVES = "curves"
NOT_JUDGED = -1e9  # below every score, and still a number that JSON can hold
OnStep = Callable[[int, int], None]
Positive = Annotated[float, pydantic.Field(gt=0)]
Count = Annotated[int, pydantic.Field(ge=1)]


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
        evaluations_per_epoch: how often the development split is scored and a checkpoint is written.
        keep: which weights are kept, those of the best evaluation or the last ones.
        early_stopping_patience: stop after this many evaluations without a better score; null never stops early.
        precision: `auto` trains in bf16 (autocast; weights stay fp32) where the machine multiplies it natively.
        log_to: where training curves go, besides the log: TensorBoard's files in `curves/` beside the model, or the
            MLflow server that its own variables name.
    """

    epochs: Positive = 3.0
    batch_size: Count = 32
    gradient_accumulation: Count = 1
    learning_rate: Positive = 5e-5
    warmup: Annotated[float, pydantic.Field(ge=0, lt=1)] = 0.1
    learning_rate_schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Annotated[float, pydantic.Field(ge=0)] = 0.01
    max_grad_norm: Positive = 1.0
    evaluations_per_epoch: Count = 1
    keep: Literal["best", "last"] = "best"
    early_stopping_patience: Count | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    log_to: Literal["none", "tensorboard", "mlflow"] = "none"


@dataclass(frozen=True)
class Fitted:
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
    examples: Sequence[dict[str, Any]],
    collate: Callable[[Sequence[dict[str, Any]]], Batch],
    training: Training,
    *,
    loss: Loss,
    seed: int,
    folder: Path,
    evaluate: Callable[[PreTrainedModel], float] | None = None,
    on_step: OnStep | None = None,
    prepare: Callable[[Batch], Batch] | None = None,
    judge_from: float = 0.0,
    progress: str | None = None,
) -> Fitted:
    """Train `model` in place; go on from the newest whole checkpoint in `folder` if there is one.

    Only parameters with `requires_grad` are optimized and saved in checkpoints.

    Args:
        model: called with each batch; its outputs go to `loss`.
        examples: encoded training examples, each with `input_ids`.
        collate: makes a batch of examples.
        training: settings.
        loss: `(outputs, batch) -> scalar`, the mean over the batch.
        seed: of batch order, dropout and whatever `prepare` draws.
        folder: for checkpoints; one training a folder.
        evaluate: scores the model, up is better; selects the weights to keep. All processes call it.
        on_step: called as `(step, planned_steps)` before each step.
        prepare: changes each batch on the device before the model sees it; its randomness is seeded by the step.
        judge_from: share of the steps before which an evaluation is recorded, but can neither be the best nor count
            towards early stopping. The last step is always evaluated.
        progress: title of the progress bar; none without it.

    Raises:
        CheckpointError: if a checkpoint is damaged or belongs to another training.
        TrainingError: if the loss is not a number.
    """
    check_training(training)
    total = planned_steps(len(examples), training)
    logger.info("%s: %d steps on %d examples", progress or folder.name, total, len(examples))
    arguments = _arguments(training, len(examples), total, seed, folder, has_score=evaluate is not None)
    stopwatch = Stopwatch()
    trainer = ExactTrainer(
        model=model,
        args=arguments,
        train_dataset=list(examples),
        eval_dataset=list(examples[:1]),
        data_collator=collate,
        callbacks=[Steps(seed, total, on_step), stopwatch, Watch()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.setup(loss, evaluate, prepare, judge_from * total, lengths_of(examples), seed)
    if training.early_stopping_patience is not None and evaluate is not None:
        trainer.add_callback(Patience(training.early_stopping_patience, first_step=math.ceil(judge_from * total)))
    if training.log_to == "tensorboard":
        trainer.add_callback(curves_callback(folder / CURVES))
    bar = ProgressBar(progress)
    trainer.add_callback(bar)
    trainer.fingerprint = {"training": to_plain(training), "seed": seed, "examples": len(examples)}
    checkpoint = checkpoints.newest(folder, trainer.fingerprint)
    wait_for_everyone()
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        bar.close()
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    vars(model).pop("forward", None)  # it was bound to this very model; a deep copy would go on calling the original
    return trainer.summary(total, arguments.bf16)


def check_training(training: Training) -> None:
    """Refuse settings that cannot work here, before anything is trained.

    Raises:
        RecipeError: if the batch does not divide among processes, or a logger is not installed.
    """
    parts = training.gradient_accumulation * _processes()
    if training.batch_size % parts:
        raise RecipeError(
            f"batch_size {training.batch_size} does not divide into {parts} parts "
            "(processes times gradient_accumulation)"
        )
    if training.log_to != "none" and importlib.util.find_spec(training.log_to) is None:
        raise RecipeError(f"log_to {training.log_to}: install it by pip install 'plankwise[{training.log_to}]'")


def uses_bf16(training: Training) -> bool:
    """Tell whether this training runs in bf16 on this machine."""
    return training.precision == "bf16" or (training.precision == "auto" and bf16_is_fast(default_device()))


def _arguments(
    training: Training, examples: int, total: int, seed: int, folder: Path, has_score: bool
) -> TrainingArguments:
    device = default_device()
    parts = training.gradient_accumulation * _processes()
    interval = max(1, math.ceil(math.ceil(examples / training.batch_size) / training.evaluations_per_epoch))
    best = has_score and training.keep == "best"
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
        eval_strategy="steps" if has_score else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=best,
        metric_for_best_model="judged" if best or has_score else None,
        greater_is_better=True if has_score else None,
        logging_steps=max(1, total // 50),
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        report_to="mlflow" if training.log_to == "mlflow" else "none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        seed=seed % 2**32,
    )


_SCHEDULERS = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def _processes() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


class ExactTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with the house's loss, batch order, scoring and checkpoints."""

    fingerprint: dict[str, Any]
    control: Any

    def setup(
        self,
        loss: Loss,
        score: Callable[[PreTrainedModel], float] | None,
        prepare: Callable[[Batch], Batch] | None,
        first_judged_step: float,
        lengths: list[int],
        seed: int,
    ) -> None:
        """Take what the parent's constructor has no place for."""
        self._loss, self._score, self._prepare = loss, score, prepare
        self._first_judged_step, self._lengths, self._seed = first_judged_step, lengths, seed
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        """Run the model without labels, so that no loss is computed twice, and apply the given loss."""
        batch = self._prepare(inputs) if self._prepare is not None else inputs
        outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
        loss = self._loss(outputs, batch)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the model with the given function, in every process."""
        assert self._score is not None
        score = self._score(self.model)
        judged = self.state.global_step >= self._first_judged_step
        metrics = {"eval_score": score, "eval_judged": score if judged else NOT_JUDGED}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def summary(self, total: int, bf16: bool) -> Fitted:
        """Collect what the training did, over all resumed parts."""
        history = [
            {"step": entry["step"], "score": entry["eval_score"]}
            for entry in self.state.log_history
            if "eval_score" in entry
        ]
        best = self.state.best_global_step if self.args.load_best_model_at_end else None
        step = self.state.global_step
        seconds = self._stopwatch().seconds
        return Fitted(step, total, seconds, best or step, history, "bf16" if bf16 else "fp32")

    def _stopwatch(self) -> Stopwatch:
        return next(each for each in self.callback_handler.callbacks if isinstance(each, Stopwatch))

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Count none: the figure is an estimate that nothing here reads."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGrouped:
        return LengthGrouped(
            self._lengths, self.args.train_batch_size * self.args.gradient_accumulation_steps, self._seed
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            checkpoints.save_weights(self.model, Path(output_dir or str(self.args.output_dir)))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        wait_for_everyone()
        if self.args.should_save:
            folder = Path(str(self.args.output_dir))
            checkpoints.seal(folder / f"checkpoint-{self.state.global_step}", self.fingerprint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.load_weights(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        best = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.best_global_step}"
        checkpoints.load_weights(self.model, best)


class LengthGrouped(Sampler[int]):
    """Orders texts so that batches hold similar lengths; the order is a function of (seed, epoch)."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = list(lengths), batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(mix_seed(self._seed, "order", self._epoch))
        grouped = get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
        full = len(grouped) // self._batch_size * self._batch_size
        batches = [grouped[at : at + self._batch_size] for at in range(0, full, self._batch_size)]
        # The longest batch stays first, so that memory runs out early or never; the rest come in any order.
        for position in [0, *(1 + torch.randperm(max(0, len(batches) - 1), generator=generator)).tolist()][
            : len(batches)
        ]:
            yield from batches[position]
        yield from grouped[full:]
