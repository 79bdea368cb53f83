"""The Transformers Trainer with the house's loss, batch order, scoring and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from plankwise.data.batching.inputs import Batch, model_inputs
from plankwise.training import checkpoints
from plankwise.training.objectives.losses import Loss

OnStep = Callable[[int, int], None]
INDICES_AT_ONCE = 10_000
NOT_JUDGED = -1e9  # below every score, and still a number that JSON can hold


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


class DeterministicTrainer(Trainer):  # type: ignore[misc]
    """The Trainer with the house's loss, batch order, scoring and checkpoints."""

    control: Any

    def __init__(
        self, material: TrainingData, order: Order, first_judged_step: float, fingerprint: Any, **options: Any
    ) -> None:
        self._material, self._order = material, order
        self._first_judged_step, self._fingerprint = first_judged_step, fingerprint
        super().__init__(train_dataset=material.examples, data_collator=material.collate, **options)
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        """Run the model without labels, so that no loss is computed twice, and apply the given loss."""
        batch = self._material.prepare(inputs) if self._material.prepare is not None else inputs
        outputs = model(**model_inputs(self.model, batch))
        loss = self._material.loss(outputs, batch)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the model with the given function, in every process."""
        assert self._material.evaluate is not None
        score = self._material.evaluate(self.model)
        judged = self.state.global_step >= self._first_judged_step
        metrics = {"eval_score": score, "eval_judged": score if judged else NOT_JUDGED}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def restore_finished(self, checkpoint: Path) -> None:
        """Take over a training that had come to its end: going on would add steps to it."""
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        self._load_callback_state()
        if self.args.load_best_model_at_end:
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(checkpoint))

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Count none: the figure is an estimate that nothing here reads."""
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
            checkpoints.seal(folder / f"checkpoint-{self.state.global_step}", self._fingerprint, finished)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.load_weights(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        best = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.best_global_step}"
        checkpoints.load_weights(self.model, best)


class Order(Sampler[int]):
    """Orders examples at random; the order is a function of (seed, epoch)."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed, self._epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        # Iterating over the tensor itself would make a tensor of each of its millions of numbers, all at once.
        indices = torch.randperm(self._count, generator=self._generator())
        for start in range(0, self._count, INDICES_AT_ONCE):
            yield from indices[start : start + INDICES_AT_ONCE].tolist()

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(mix_seed(self._seed, "order", self._epoch))


class LengthGrouped(Order):
    """Orders texts at random, such that batches hold similar lengths."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        super().__init__(len(lengths), seed)
        self._lengths, self._batch_size = list(lengths), batch_size

    def __iter__(self) -> Iterator[int]:
        generator = self._generator()
        grouped = get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
        full = len(grouped) // self._batch_size * self._batch_size
        batches = [grouped[at : at + self._batch_size] for at in range(0, full, self._batch_size)]
        # The longest batch stays first, so that memory runs out early or never; the rest come in any order.
        for position in [0, *(1 + torch.randperm(max(0, len(batches) - 1), generator=generator)).tolist()][
            : len(batches)
        ]:
            yield from batches[position]
        yield from grouped[full:]
