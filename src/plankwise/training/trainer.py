"""The Transformers Trainer with a loss, batch order, scoring and checkpoints of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedModel, Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import get_length_grouped_indices

from plankwise.core.distributed import wait_for_everyone
from plankwise.core.seeds import mix_seed
from plankwise.core.step_log import thinned
from plankwise.data.batching.inputs import Batch, model_inputs
from plankwise.training import checkpoints
from plankwise.training.callbacks import Stopwatch
from plankwise.training.objectives.losses import Loss

OnStep = Callable[[int, int], None]
INDICES_AT_ONCE = 10_000
SELECTION_METRIC = "selection_score"  # the development score, if the evaluation may select weights
LOSSES = 100  # of a training's record
NOT_SELECTABLE = -1e9  # below every score, and still a number that JSON can hold


@dataclass(frozen=True)
class TrainingData:
    """What a training learns from.

    Attributes:
        examples: encoded, each with `input_ids`, or `windows` of such.
        collate: makes a batch of examples.
        loss: `(outputs, batch) -> scalar`, the mean over the batch.
        evaluate: scores the model, up is better; selects the weights to keep. Every process calls it.
        prepare: changes each batch on the device before the model sees it; its randomness is seeded by the step.
        at_step: called as `(step, planned_steps)` before each step.
        equal_lengths: whether all examples are as long as the first; batches then need no grouping by length.
    """

    examples: Sequence[dict[str, Any]] | Dataset
    collate: Callable[[Sequence[dict[str, Any]]], Batch]
    loss: Loss
    evaluate: Callable[[PreTrainedModel], float] | None = None
    prepare: Callable[[Batch], Batch] | None = None
    at_step: OnStep | None = None
    equal_lengths: bool = False


@dataclass(frozen=True)
class TrainingResult:
    """What a training did, over all resumed parts.

    Attributes:
        steps: optimizer steps run.
        planned_steps: steps that the settings ask for; more than `steps` after early stopping.
        train_seconds: time spent in these steps, evaluation and checkpoints not included.
        best_step: step that the model's weights are of now.
        history: one `{"step", "score"}` per evaluation.
        precision: `bf16` or `fp32`.
        losses: `{"step", "loss"}` over the training, at most `LOSSES` of them; each is the mean since the line of
            progress before.
    """

    steps: int
    planned_steps: int
    train_seconds: float
    best_step: int
    history: list[dict[str, float]]
    precision: str
    losses: list[dict[str, float]] = field(default_factory=list)


class DeterministicTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with a loss, batch order, scoring and checkpoints of our own.

    Args:
        data: what it learns from.
        order: of examples.
        first_selectable_step: evaluations before this step cannot be the best.
        fingerprint: what a checkpoint of this training belongs to; any JSON value.
        options: of the Trainer.
    """

    control: Any

    def __init__(
        self, data: TrainingData, order: Order, *, first_selectable_step: float, fingerprint: Any, **options: Any
    ) -> None:
        self._data, self._order, self.fingerprint = data, order, fingerprint
        self._first_selectable_step = first_selectable_step
        super().__init__(train_dataset=data.examples, data_collator=data.collate, **options)
        # Our losses are means over a batch; so the Trainer has to divide them by the number of accumulated batches.
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        """Run the model without labels, so that no loss is computed twice, and apply the given loss."""
        batch = self._data.prepare(inputs) if self._data.prepare is not None else inputs
        outputs = model(**model_inputs(self.model, batch))
        loss = self._data.loss(outputs, batch)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the model with the given function, in every process."""
        assert self._data.evaluate is not None
        score = self._data.evaluate(self.model)
        selectable = self.state.global_step >= self._first_selectable_step
        metrics = {"eval_score": score, f"eval_{SELECTION_METRIC}": score if selectable else NOT_SELECTABLE}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def restore_finished(self, checkpoint: Path) -> None:
        """Restore a training that has ended, as `train` would leave it; `train` itself would add steps."""
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        self._load_callback_state()
        if self.args.load_best_model_at_end:
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(checkpoint))

    def result(self, planned_steps: int) -> TrainingResult:
        """Return what the training did."""
        best = self.state.best_global_step if self.args.load_best_model_at_end else None
        # The Trainer replaces callbacks when it restores their state, so the stopwatch that ran is looked up.
        stopwatch = next(each for each in self.callback_handler.callbacks if isinstance(each, Stopwatch))
        scores, losses = ([entry for entry in self.state.log_history if key in entry] for key in ("eval_score", "loss"))
        return TrainingResult(
            steps=self.state.global_step,
            planned_steps=planned_steps,
            train_seconds=stopwatch.seconds,
            best_step=best or self.state.global_step,
            history=[{"step": entry["step"], "score": entry["eval_score"]} for entry in scores],
            precision="bf16" if self.args.bf16 else "fp32",
            losses=[{"step": entry["step"], "loss": round(entry["loss"], 5)} for entry in thinned(losses, LOSSES)],
        )

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Return 0: nothing reads this estimate."""
        return 0

    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return self._order

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            checkpoints.save_weights(self.model, Path(output_dir or str(self.args.output_dir)))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        wait_for_everyone()
        if self.args.should_save:
            folder = Path(str(self.args.output_dir))
            finished = self.control.should_training_stop or self.state.global_step >= self.state.max_steps
            checkpoints.seal(folder / f"checkpoint-{self.state.global_step}", self.fingerprint, finished)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.load_weights(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        best = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.best_global_step}"
        checkpoints.load_weights(self.model, best)


class Order(Sampler[int]):
    """A random order of examples, a function of (seed, epoch).

    Args:
        count: number of examples.
        seed: of all epochs.
        at_once: indices that are turned into Python numbers at a time.
    """

    def __init__(self, count: int, seed: int, at_once: int = INDICES_AT_ONCE) -> None:
        self._count, self._seed, self._epoch, self._at_once = count, seed, 0, at_once

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        # Iterating over the tensor itself would make one tensor for each of its millions of numbers, all at once.
        indices = torch.randperm(self._count, generator=self._generator())
        for start in range(0, self._count, self._at_once):
            yield from indices[start : start + self._at_once].tolist()

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(mix_seed(self._seed, "order", self._epoch))


class LengthGrouped(Order):
    """A random order in which batches hold texts of similar length."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        super().__init__(len(lengths), seed)
        self._lengths, self._batch_size = list(lengths), batch_size

    def __iter__(self) -> Iterator[int]:
        generator = self._generator()
        grouped = get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
        full = len(grouped) // self._batch_size * self._batch_size
        batches = [grouped[at : at + self._batch_size] for at in range(0, full, self._batch_size)]
        # The longest batch stays first, so that memory runs out early or never; the others are shuffled.
        others = (1 + torch.randperm(max(0, len(batches) - 1), generator=generator)).tolist()
        for position in [0, *others][: len(batches)]:
            yield from batches[position]
        yield from grouped[full:]
