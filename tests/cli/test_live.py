"""The live table of a search: what it shows, and that nothing is shown where there is no terminal."""

from __future__ import annotations

import io
import logging
import sys

from rich.console import Console

from outcomes import outcome
from plankwise.cli.live import live_table
from plankwise.search.budget.candidate import Failure
from plankwise.search.budget.goal import Goal
from plankwise.search.shrink.climb import Progress

MET, MISSED = outcome("fast enough"), outcome("too slow", speedup=(2.0, 1.9, 2.1))


def test_it_shows_candidates_and_times_and_the_log_above() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    log, handler = logging.getLogger("test.live"), logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    before = handler.stream
    try:
        with live_table(shown=True, console=console) as on_progress:
            assert screen.getvalue() == ""
            failed = Failure(candidate=outcome("broken").candidate, fault="no", seconds=1.0)
            now = Progress(Goal(speedup=4.0), [MET, MISSED], [failed], outcome("next one").candidate, 65.0, 300.0)
            on_progress(now)
            log.warning("a line of the log")
            on_progress(now)
        assert handler.stream is before
    finally:
        logging.getLogger().removeHandler(handler)
    shown = screen.getvalue()
    for text in ("keep 99 %, 4× as fast", "fast enough", "too slow", "broken", "now: next one", "65 s spent", "left"):
        assert text in shown
    assert "a line of the log" in shown


def test_nothing_is_shown_without_a_terminal() -> None:
    screen = io.StringIO()
    with live_table(shown=True, console=Console(file=screen)) as on_progress:
        on_progress(Progress(Goal()))
    assert screen.getvalue() == ""
