"""Progress of a training: a bar on a terminal, lines in a log."""

from __future__ import annotations

from typing import Any

from rich.progress import MofNCompleteColumn, TextColumn
from transformers import TrainerCallback

from plankwise.core.progress import ProgressLog, progress_of


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Shows steps, time left, the last loss and score; lines of a log also show the learning rate.

    Args:
        title: what is trained.
        shown: whether to draw a bar, if there is a terminal.
    """

    def __init__(self, title: str, shown: bool) -> None:
        self._progress = progress_of(shown, MofNCompleteColumn(), TextColumn("{task.fields[news]}"))
        self._title, self._loss, self._rate, self._score = title, "", "", ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the bar, from the step that a resumed run starts at."""
        if state.is_world_process_zero:
            self._progress.start()
            self._bar = self._progress.add_task(
                self._title, total=state.max_steps, completed=state.global_step, news=""
            )
            self._lines = ProgressLog(self._title, state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance by a step; if its loss is about to be logged, the line waits for that."""
        if not state.is_world_process_zero:
            return
        if not self._progress.disable:
            self._progress.update(self._bar, completed=state.global_step, news=f"{self._loss} {self._score}")
        elif not control.should_log:
            self._line(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show the loss, learning rate or score."""
        logs = logs or {}
        if "eval_score" in logs:
            self._score = f"score {logs['eval_score']:.4f}"
        if "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f}"
            self._rate = f"learning rate {float(logs['learning_rate']):.2g}"
            if state.is_world_process_zero and self._progress.disable:
                self._line(state)

    def _line(self, state: Any) -> None:
        news = ", ".join(each for each in (self._loss, self._rate) if each)
        self._lines.update(state.global_step, f"step {state.global_step} of {state.max_steps}", news)

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()
