"""The live table of a search: candidates, time spent and left. Without a terminal the log's lines have to do."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from plankwise.core.intervals import format_interval
from plankwise.core.progress import duration

if TYPE_CHECKING:
    from plankwise.search.shrink.climb import Progress, ProgressCallback

PER_SECOND = 1  # updates; training lines of the log must not be torn apart


@contextmanager
def live_table(shown: bool, console: Console | None = None) -> Iterator[ProgressCallback]:
    """Show a table that follows a search while the context lasts; yield what the search has to call.

    The table appears with the first call: what is done before it shows bars of its own. Log lines are printed above it.

    Args:
        shown: whether it may be shown.
        console: to show it on, if it is a terminal; standard error by default.
    """
    console = console or Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda progress: None
        return
    display = _Display()
    with ExitStack() as stack:

        def follow(progress: Progress) -> None:
            if display.update(progress):
                stack.enter_context(Live(display, console=console, refresh_per_second=PER_SECOND, transient=True))
                stack.enter_context(_log_above())

        yield follow


@contextmanager
def _log_above() -> Iterator[None]:
    """Let the log write to where Rich has put standard error for now, or its lines would tear the table apart."""
    streams = [each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler)]
    before = [handler.setStream(sys.stderr) for handler in streams]
    try:
        yield
    finally:
        for handler, stream in zip(streams, before, strict=True):
            if stream is not None:
                handler.setStream(stream)


class _Display:
    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._at, self._lock = time.monotonic(), threading.Lock()

    def update(self, progress: Progress) -> bool:
        """Take over what the search has found; return whether this is the first time."""
        with self._lock:
            first = self._progress is None
            self._progress, self._at = progress, time.monotonic()
        return first

    def __rich__(self) -> Any:
        """Render the table, with the time that has gone by since the last update."""
        with self._lock:
            progress, since = self._progress, time.monotonic() - self._at
        assert progress is not None  # it is shown from the first update on
        return Group(_table(progress), Text(_times(progress, since)))


def _table(progress: Progress) -> Table:
    table = Table(title=progress.goal.describe(), title_justify="left")
    for column in ("candidate", "retained [95 %]", "faster", "MB", "min"):
        table.add_column(column, justify="left" if column == "candidate" else "right")
    for each in progress.outcomes:
        style = "green" if progress.goal.is_met(each) else None
        table.add_row(
            each.candidate.name,
            format_interval(each.retained.value, each.retained.low, each.retained.high),
            f"{each.speedup.value:.2f}×",
            f"{each.size_bytes / 1e6:.1f}",
            f"{each.seconds / 60:.1f}",
            style=style,
        )
    for failure in progress.failures:
        table.add_row(failure.candidate.name, "left out", "", "", f"{failure.seconds / 60:.1f}", style="dim")
    return table


def _times(progress: Progress, since: float) -> str:
    current = "" if progress.current is None else f"now: {progress.current.name}; "
    return f"{current}{duration(progress.spent + since)} spent, {duration(max(0.0, progress.left - since))} left"
