"""What happens around each training step: seeding, timing, checks of the loss, early stopping."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_callback import ExportableState

from plankwise.core.errors import TrainingError
from plankwise.core.seeds import mix_seed

logger = logging.getLogger(__name__)
WARM_UP_STEPS = 2  # of a rehearsal: they allocate memory and choose kernels


class Steps(TrainerCallback):  # type: ignore[misc]
    """Seeds each step by (seed, step, rank) and calls the hooks of methods and objectives."""

    def __init__(self, seed: int, total: int, hooks: Sequence[Callable[[int, int], None]]) -> None:
        self._seed, self._total, self._hooks = seed, total, hooks

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seed dropout and masking of this step, each process with its own numbers."""
        torch.manual_seed(mix_seed(self._seed, state.global_step, args.process_index))
        for hook in self._hooks:
            hook(state.global_step, self._total)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Score the last weights too, even if the interval of evaluations does not end there."""
        if state.global_step >= self._total and args.eval_strategy != "no":
            control.should_evaluate = True


class Epochs(TrainerCallback):  # type: ignore[misc]
    """Sets the epoch of the batch order itself: resuming and sharding wrap it, and the Trainer may miss it."""

    def __init__(self, order: Any, steps_per_epoch: int) -> None:
        self._order, self._steps_per_epoch = order, steps_per_epoch

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the epoch before its batches are drawn."""
        self._order.set_epoch(state.global_step // self._steps_per_epoch)


class Stopwatch(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Adds up the seconds spent in training steps, over all parts of a resumed run."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start, unless it has been running since the step before."""
        if self._since is None:
            self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop before a checkpoint or evaluation; otherwise keep running, so that loading the next batch counts."""
        if control.should_evaluate or control.should_save or control.should_training_stop:
            self.pause()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop."""
        self.pause()

    def pause(self) -> None:
        """Add the running time to the sum."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold."""
        return {"args": {}, "attributes": {"seconds": self.seconds}}


class LossMonitor(TrainerCallback):  # type: ignore[misc]
    """Logs evaluations and stops a training when its loss is no longer a number."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Check each logged loss.

        Raises:
            TrainingError: if it is not finite.
        """
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            raise TrainingError(f"the loss is {loss} at step {state.global_step}; lower the learning rate")

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Log each development score."""
        score = (metrics or {})["eval_score"]
        logger.info("step %d of %d: development score %.4f", state.global_step, state.max_steps, score)


class Rehearsal(TrainerCallback):  # type: ignore[misc]
    """Times the steps of a training in a dry run, and ends it after some seconds.

    The first steps are left out, unless there are no others.

    Args:
        seconds: time after which to stop.
        scale: ratio of a step's time in the real training to that in the dry run.
    """

    def __init__(self, seconds: float, scale: float = 1.0) -> None:
        self._limit, self._scale, self._begun, self._last, self._steps = seconds, scale, 0.0, 0.0, 0
        self._first: list[float] = []
        self._timed: list[float] = []

    @property
    def seconds_per_step(self) -> float:
        """The median over the steps that count; 0 if no step ran."""
        return self._scale * statistics.median(self._timed or self._first or [0.0])

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock; a method may train several times, and each begins with a warm-up."""
        self._begun = self._last = time.perf_counter()
        self._steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add the time since the step before, so that loading the batch counts."""
        now = time.perf_counter()
        (self._first if self._steps < WARM_UP_STEPS else self._timed).append(now - self._last)
        self._last, self._steps = now, self._steps + 1
        if now - self._begun > self._limit:
            control.should_training_stop = True


def curves_callback(folder: Path) -> TrainerCallback:
    """Return the callback that writes TensorBoard's files into `folder`."""
    from torch.utils.tensorboard import SummaryWriter  # an extra
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder)))


class EarlyStopping(EarlyStoppingCallback):  # type: ignore[misc]
    """Early stopping that ignores evaluations before `first_step`."""

    def __init__(self, early_stopping_patience: int, first_step: int = 0) -> None:
        super().__init__(early_stopping_patience)
        self.first_step = first_step

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Skip the parent's checks: it demands `load_best_model_at_end`, and with `keep: last` that is off."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Count evaluations without a better score, and stop after `early_stopping_patience` of them."""
        if state.global_step >= self.first_step:
            super().on_evaluate(args, state, control, metrics)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold."""
        kept: dict[str, Any] = super().state()
        kept["args"] = {"early_stopping_patience": self.early_stopping_patience, "first_step": self.first_step}
        return kept
