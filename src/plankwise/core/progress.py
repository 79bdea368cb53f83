"""Progress of long work, as a bar on a terminal and as log lines elsewhere; and other libraries kept quiet."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

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

logger = logging.getLogger(__name__)
Bar = Callable[[float], None]  # called with the amount done so far
SHARE_PER_LINE, SECONDS_PER_LINE = 0.05, 30.0
SECONDS_BEFORE_LINES = 5.0  # shorter work is not logged
_CHATTY = ("transformers", "huggingface_hub", "datasets")
_verbose = False


def progress_of(shown: bool, counter: ProgressColumn, *more: ProgressColumn) -> Progress:
    """Return a display of title, bar, counter, times and further columns; it disappears at the end."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), counter, TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, *more, console=console, disable=not (shown and console.is_terminal), transient=True)


class ProgressLog:
    """Logs the progress of work at every twentieth, and at least every 30 s while it advances."""

    def __init__(
        self,
        title: str,
        total: float | None,
        begun: float = 0.0,
        *,
        silent_for: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            title: of the work.
            total: amount of work; `None` if it is not known.
            begun: amount done before, such as by a killed run; the time left is estimated without it.
            silent_for: seconds before the first line.
            clock: returns seconds.
        """
        self._title, self._total, self._begun, self._silent_for = title, total, begun, silent_for
        self._clock = clock
        self._started = self._last = clock()
        self._logged = begun

    def update(self, done: float, what: str | None = None, news: str = "") -> None:
        """Log a line if one is due.

        Args:
            done: amount so far.
            what: describes it, such as `step 3 of 10`; the share by default.
            news: further text, such as the loss.
        """
        now, total = self._clock(), self._total
        far = total is not None and (done - self._logged >= SHARE_PER_LINE * total or done >= total > self._logged)
        if now - self._started < self._silent_for or not (far or now - self._last >= SECONDS_PER_LINE):
            return
        self._last, self._logged = now, done
        share = f"{done:,.0f} done" if total is None else f"{done / total:.0%}" if total else "done"
        parts = [share if what is None else f"{what} ({share})", news, self._left(done, now)]
        logger.info("%s: %s", self._title, ", ".join(part for part in parts if part))

    def _left(self, done: float, now: float) -> str:
        if self._total is None or not self._begun < done < self._total:
            return ""
        return f"{duration((now - self._started) * (self._total - done) / (done - self._begun))} left"


@contextmanager
def bar(title: str, total: float | None, shown: bool, *, clock: Callable[[], float] = time.monotonic) -> Iterator[Bar]:
    """Show progress as a bar on a terminal, or as log lines elsewhere; yield the function that updates it.

    Args:
        title: of the work.
        total: amount of work; `None` if it is not known.
        shown: whether a bar may be shown.
        clock: returns seconds, for the log lines.
    """
    with progress_of(shown, TaskProgressColumn()) as progress:
        if progress.disable:
            yield ProgressLog(title, total, silent_for=SECONDS_BEFORE_LINES, clock=clock).update
            return
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


def duration(seconds: float) -> str:
    """Return a time span as text in a fitting unit.

    Example:
        >>> duration(90), duration(600)
        ('90 s', '10 min')
    """
    size, unit = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    return f"{seconds / size:.0f} {unit}"


def set_verbose(verbose: bool) -> None:
    """Set whether the notices and bars of other libraries are shown."""
    global _verbose
    _verbose = verbose


@contextmanager
def quiet_loggers(*names: str | None) -> Iterator[None]:
    """Silence these loggers below the level of errors, unless `set_verbose`; `None` is the root logger."""
    loggers = [] if _verbose else [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


@contextmanager
def muted(*names: str | None) -> Iterator[None]:
    """Suppress the warnings, the output and the log lines of another library, unless `set_verbose`."""
    with ExitStack() as stack:
        if not _verbose:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.enter_context(quiet_loggers(*names))
            stack.enter_context(redirect_stdout(StringIO()))
            stack.enter_context(redirect_stderr(StringIO()))
        yield


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide the bars and notices of Transformers and of the Hub's client while the context lasts."""
    with ExitStack() as stack:
        from huggingface_hub.utils import are_progress_bars_disabled  # type: ignore[attr-defined]  # heavy: not for --help
        from transformers.utils import logging as notices

        if not _verbose:
            stack.enter_context(quiet_loggers(*_CHATTY))
            if notices.is_progress_bar_enabled() and not are_progress_bars_disabled():
                notices.disable_progress_bar()
                stack.callback(notices.enable_progress_bar)
        yield
