"""A progress bar on standard error while a training runs."""

from __future__ import annotations

from typing import Any

from rich.progress import MofNCompleteColumn, TextColumn
from transformers import TrainerCallback

from plankwise.core.progress import progress_of


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Shows steps, time left, and the last loss and score; silent without a title or without a terminal."""

    def __init__(self, title: str | None) -> None:
        self._progress = progress_of(title is not None, MofNCompleteColumn(), TextColumn("{task.fields[news]}"))
        self._title, self._loss, self._score = title or "", "", ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the bar, where a resumed run left it."""
        if state.is_world_process_zero:
            self._progress.start()
            self._bar = self._progress.add_task(
                self._title, total=state.max_steps, completed=state.global_step, news=""
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move on by a step."""
        if state.is_world_process_zero:
            self._progress.update(self._bar, completed=state.global_step, news=f"{self._loss} {self._score}")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Take the news."""
        if logs and "loss" in logs:
            self._loss = f"loss {float(logs['loss']):.3f}"
        if logs and "eval_score" in logs:
            self._score = f"score {logs['eval_score']:.4f}"

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()
