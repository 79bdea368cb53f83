"""How far long work is: a bar where standard error is a terminal, lines in the log elsewhere; and quiet neighbours."""

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
Bar = Callable[[float], None]  # called with what is done so far
SHARE_PER_LINE, SECONDS_PER_LINE = 0.05, 30.0
SECONDS_BEFORE_LINES = 5.0  # shorter work passes without a line
_CHATTY = ("transformers", "huggingface_hub", "datasets")
_verbose = False


def progress_of(shown: bool, counter: ProgressColumn, *more: ProgressColumn) -> Progress:
    """Make a display of title, bar, counter and time left, and whatever columns follow; it goes away in the end."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), counter, TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, *more, console=console, disable=not (shown and console.is_terminal), transient=True)


class Lines:
    """Logs how far work is, at every twentieth of the way and at least every 30 s while it moves."""

    def __init__(self, title: str, total: float | None, begun: float = 0.0, silent_for: float = 0.0) -> None:
        """Start the clock.

        Args:
            title: what is being done.
            total: all there is to do; `None` where that is not known.
            begun: what was done before, such as by a killed run.
            silent_for: seconds before the first line.
        """
        self._title, self._total, self._begun, self._silent_for = title, total, begun, silent_for
        self._started = self._last = time.monotonic()
        self._logged = begun

    def update(self, done: float, what: str | None = None, news: str = "") -> None:
        """Log a line if one is due.

        Args:
            done: so far.
            what: names what is done, such as `step 3 of 10`; the share by default.
            news: more to say of it.
        """
        now, total = time.monotonic(), self._total
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
def bar(title: str, total: float | None, shown: bool) -> Iterator[Bar]:
    """Show how much of `total` is done; where that is not known, that something is. In a log that takes lines."""
    with progress_of(shown, TaskProgressColumn()) as progress:
        if progress.disable:
            yield Lines(title, total, silent_for=SECONDS_BEFORE_LINES).update
            return
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done)


def duration(seconds: float) -> str:
    """Write a time span in the unit that fits.

    Example:
        >>> duration(90), duration(600)
        ('90 s', '10 min')
    """
    size, unit = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    return f"{seconds / size:.0f} {unit}"


def set_verbose(verbose: bool) -> None:
    """Choose whether other libraries' notices and bars are shown."""
    global _verbose
    _verbose = verbose


@contextmanager
def quiet_loggers(*names: str | None) -> Iterator[None]:
    """Let these loggers, `None` being the root, say nothing below an error, unless the user wants it all."""
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
    """Keep what another library warns of, prints and logs by these loggers to itself, unless the user wants it all."""
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
    """Hide the bars and notices of Transformers and the Hub's client for a while; all is as before afterwards."""
    with ExitStack() as stack:
        from huggingface_hub.utils import are_progress_bars_disabled  # type: ignore[attr-defined]  # heavy: not for --help
        from transformers.utils import logging as notices

        if not _verbose:
            stack.enter_context(quiet_loggers(*_CHATTY))
            if notices.is_progress_bar_enabled() and not are_progress_bars_disabled():
                notices.disable_progress_bar()
                stack.callback(notices.enable_progress_bar)
        yield
