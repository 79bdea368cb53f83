from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
from transformers.utils import logging as notices

from plankwise.core.progress import ProgressLog, bar, duration, muted, quiet_loading, quiet_loggers, set_verbose


class Clock:
    """A clock that only moves when the test moves it, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verbose() -> Iterator[None]:
    set_verbose(True)
    yield
    set_verbose(False)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return list(caplog.messages)


@pytest.fixture(autouse=True)
def _informed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plankwise")


class TestProgressLog:
    def test_one_for_each_twentieth_and_the_last(self, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        counter = ProgressLog("baseline", 400, clock=clock)
        for step in range(1, 401):
            clock.now += 0.01
            counter.update(step, f"step {step} of 400", "loss 0.500")
        assert len(lines(caplog)) == 20
        assert lines(caplog)[0] == "baseline: step 20 of 400 (5%), loss 0.500, 4 s left"
        assert lines(caplog)[-1] == "baseline: step 400 of 400 (100%), loss 0.500"

    def test_one_each_half_minute_where_that_is_sooner(self, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        counter = ProgressLog("slow", 1000, clock=clock)
        for step in range(1, 11):
            clock.now += 10
            counter.update(step)
        assert lines(caplog) == ["slow: 0%, 3 h left", "slow: 1%, 3 h left", "slow: 1%, 3 h left"]

    def test_the_rest_is_reckoned_from_where_a_resumed_run_began(
        self, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        counter = ProgressLog("resumed", 100, begun=80, clock=clock)
        clock.now += 50
        counter.update(85)
        assert lines(caplog) == ["resumed: 85%, 2 min left"]

    def test_an_unknown_total(self, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        counter = ProgressLog("reading", None, clock=clock)
        clock.now += 31
        counter.update(1234)
        assert lines(caplog) == ["reading: 1,234 done"]


class TestBar:
    def test_short_work_is_silent_and_long_work_is_not(self, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        for seconds in (0.1, 10.0):
            with bar("importance", 10, shown=True, clock=clock) as shown:
                for done in range(1, 11):
                    clock.now += seconds
                    shown(done)
        assert lines(caplog)[0] == "importance: 10%, 90 s left"
        assert len(lines(caplog)) == 10


class TestQuiet:
    def test_loggers_and_bars_are_as_before_afterwards(self) -> None:
        logger = logging.getLogger("transformers")
        before = logger.level
        with quiet_loading():
            assert logger.level == logging.ERROR
            assert not notices.is_progress_bar_enabled()
        assert logger.level == before

    @pytest.mark.usefixtures("verbose")
    def test_nothing_is_hidden_where_all_is_wanted(self, capsys: pytest.CaptureFixture[str]) -> None:
        with quiet_loggers("some.library"), muted("some.library"):
            assert logging.getLogger("some.library").level == logging.NOTSET
            sys.stdout.write("seen\n")
        assert capsys.readouterr().out == "seen\n"

    def test_what_others_print_is_hidden(self, capsys: pytest.CaptureFixture[str]) -> None:
        with muted("some.library"):
            sys.stdout.write("advice")
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h")])
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
