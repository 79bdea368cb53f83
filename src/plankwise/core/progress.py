"""Progress bars on standard error, silent where that is no terminal; and silence where others are too loud."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Bar = Callable[[float], None]  # called with what is done so far


def progress_of(shown: bool, counter: ProgressColumn, *more: ProgressColumn) -> Progress:
    """Make a display of title, bar, counter and time left, and whatever columns follow; it goes away in the end."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), counter, TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, *more, console=console, disable=not (shown and console.is_terminal), transient=True)


@contextmanager
def bar(title: str, total: float | None, shown: bool) -> Iterator[Bar]:
    """Show how much of `total` is done; where that is not known, that something is."""
    with progress_of(shown, TaskProgressColumn()) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextmanager
def hushed(*names: str | None) -> Iterator[None]:
    """Let these loggers, `None` being the root, say nothing below an error."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
