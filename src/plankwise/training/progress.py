"""How far a training is: a bar on a terminal, lines in a log."""

from __future__ import annotations

from typing import Any

from rich.progress import MofNCompleteColumn, TextColumn
from transformers import TrainerCallback

from plankwise.core.progress import ProgressLog, progress_of


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Shows steps, time left, the last loss and score, and in lines of a log the learning rate as well."""

    def __init__(self, title: str, shown: bool) -> None:
        """Name what is trained; a bar is drawn only if it is to be `shown` and there is a terminal."""
        self._progress = progress_of(shown, MofNCompleteColumn(), TextColumn("{task.fields[news]}"))
        self._title, self._loss, self._rate, self._score = title, "", "", ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the bar, where a resumed run left it."""
        if state.is_world_process_zero:
            self._progress.start()
            self._bar = self._progress.add_task(
                self._title, total=state.max_steps, completed=state.global_step, news=""
            )
            self._lines = ProgressLog(self._title, state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move on by a step; where its loss is about to be logged, the line waits for that."""
        if not state.is_world_process_zero:
            return
        if not self._progress.disable:
            self._progress.update(self._bar, completed=state.global_step, news=f"{self._loss} {self._score}")
        elif not control.should_log:
            self._line(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Take the news."""
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
        """Take the bar away."""
        self._progress.stop()
