"""Timing in turns, on a clock that the variants advance."""

from __future__ import annotations

from functools import partial

import pytest

from fake_runtime import Clock
from plankwise.core.timing import fastest, ratio, seconds_of, take_turns, take_turns_in_runs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Spender:
    """A variant whose runs take the given seconds; the last figure holds for all further ones."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        self.clock, self.seconds, self.runs = clock, seconds, 0

    def __call__(self) -> None:
        self.clock.now += self.seconds[min(self.runs, len(self.seconds) - 1)]
        self.runs += 1


class TestTurns:
    def test_alternate_after_one_warm_up(self) -> None:
        ran: list[str] = []
        seconds = take_turns({name: partial(ran.append, name) for name in "abc"}, 3)
        assert "".join(ran) == "abc" + "abc" + "cba" + "abc"
        assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}

    def test_only_the_rounds_are_timed(self, clock: Clock) -> None:
        runs = {"slow": Spender(clock, 1000.0, 5.0), "quick": Spender(clock, 1000.0, 2.0)}
        assert take_turns(runs, 4) == {"slow": [5.0] * 4, "quick": [2.0] * 4}

    def test_every_round_is_reported_untimed(self, clock: Clock) -> None:
        finished: list[int] = []

        def report(number: int) -> None:
            finished.append(number)
            clock.now += 100.0

        assert take_turns({"a": Spender(clock, 1.0)}, 3, on_round=report) == {"a": [1.0] * 3}
        assert finished == [1, 2, 3]

    def test_no_round_begins_after_the_bound_once_there_are_three(
        self, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        runs = {"a": Spender(clock, 4.0)}
        assert len(take_turns(runs, 9, bound_s=1.0)["a"]) == 3
        assert "timed 3 rounds instead of 9: they took longer than 1 s" in caplog.text
        assert len(take_turns(runs, 9, bound_s=18.0)["a"]) == 5
        assert len(take_turns_in_runs(runs, 9, repeats=2, bound_s=1.0)["a"]) == 3
        assert len(take_turns(runs, 2, bound_s=1.0)["a"]) == 2


class TestTurnsInRuns:
    def test_every_turn_begins_with_an_untimed_run(self, clock: Clock) -> None:
        ran: list[str] = []

        def run(name: str, takes: float) -> None:
            clock.now += takes if ran and ran[-1] == name else 1000.0  # the first run after another variant is slow
            ran.append(name)

        runs = {"a": partial(run, "a", 3.0), "b": partial(run, "b", 2.0)}
        seconds = take_turns_in_runs(runs, rounds=2, repeats=2)
        assert "".join(ran) == "aaa" + "bbb" + "bbb" + "aaa"
        assert seconds == {"a": [[3.0, 3.0], [3.0, 3.0]], "b": [[2.0, 2.0], [2.0, 2.0]]}


class TestSingleRuns:
    def test_seconds_of_one(self, clock: Clock) -> None:
        assert seconds_of(Spender(clock, 7.0, 1.0)) == 7.0

    def test_the_fastest_counts(self, clock: Clock) -> None:
        assert fastest(Spender(clock, 5.0, 3.0, 4.0), 3) == 3.0

    @pytest.mark.parametrize(("bound_s", "runs"), [(-1.0, 1), (3.9, 1), (4.0, 2), (99.0, 5)])
    def test_no_run_begins_that_would_end_after_the_bound(self, clock: Clock, bound_s: float, runs: int) -> None:
        variant = Spender(clock, 2.0)
        assert fastest(variant, 5, bound_s) == 2.0
        assert variant.runs == runs


class TestRatio:
    def test_is_the_median_of_the_rounds_ratios(self) -> None:
        # The ratio of the medians would be 4.5.
        assert ratio([4.0, 9.0, 100.0], [2.0, 3.0, 1.0]) == {"speedup": 3.0, "spread": [2.0, 100.0]}

    def test_needs_as_many_rounds_of_both(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            ratio([1.0, 2.0], [1.0])
