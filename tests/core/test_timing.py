from __future__ import annotations

import statistics
from itertools import count
from types import SimpleNamespace

import pytest

from plankwise.core.timing import ratio, take_turns, take_turns_in_runs


class TestTurns:
    def test_alternate_after_one_warm_up(self):
        ran = []
        seconds = take_turns({name: lambda name=name: ran.append(name) for name in "abc"}, 3)
        assert "".join(ran) == "abc" + "abc" + "cba" + "abc"
        assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}

    def test_only_the_rounds_are_timed(self, monkeypatch):
        clock, step = count(), {"now": 0.0}
        runs = {"slow": 5.0, "quick": 2.0}

        def spend(name):
            step["now"] += runs[name] if next(clock) >= 2 else 1000.0  # the two warm-ups are dear

        monkeypatch.setattr("time.perf_counter", lambda: step["now"])
        seconds = take_turns({name: lambda name=name: spend(name) for name in runs}, 4)
        assert seconds == {"slow": [5.0] * 4, "quick": [2.0] * 4}

    def test_no_round_begins_after_the_bound_once_there_are_three(self, monkeypatch, caplog):
        clock = SimpleNamespace(now=0.0)
        monkeypatch.setattr("time.perf_counter", lambda: clock.now)

        def run():
            clock.now += 4.0

        assert len(take_turns({"a": run}, 9, bound_s=1.0)["a"]) == 3
        assert "timed 3 rounds instead of 9: they took longer than 1 s" in caplog.text
        assert len(take_turns({"a": run}, 9, bound_s=18.0)["a"]) == 5
        assert len(take_turns_in_runs({"a": run}, 9, repeats=2, bound_s=1.0)["a"]) == 3
        assert len(take_turns({"a": run}, 2, bound_s=1.0)["a"]) == 2


class TestTurnsInRuns:
    def test_every_turn_begins_with_an_untimed_run(self, monkeypatch):
        ran, clock = [], SimpleNamespace(now=0.0)
        monkeypatch.setattr("time.perf_counter", lambda: clock.now)

        def run(name, takes):
            clock.now += 1000.0 if not ran or ran[-1] != name else takes  # whoever comes anew is slow
            ran.append(name)

        runs = {"a": lambda: run("a", 3.0), "b": lambda: run("b", 2.0)}
        seconds = take_turns_in_runs(runs, rounds=2, repeats=2)
        assert "".join(ran) == "aaa" + "bbb" + "bbb" + "aaa"
        assert seconds["a"] == [[3.0, 3.0], [3.0, 3.0]]
        assert seconds["b"] == [[2.0, 2.0], [2.0, 2.0]]


class TestRatio:
    def test_is_the_median_of_the_rounds_ratios(self):
        above, below = [4.0, 9.0, 100.0], [2.0, 3.0, 1.0]
        assert ratio(above, below) == {"speedup": 3.0, "spread": [2.0, 100.0]}
        assert statistics.median(above) / statistics.median(below) != 3.0

    def test_needs_as_many_rounds_of_both(self):
        with pytest.raises(ValueError):
            ratio([1.0, 2.0], [1.0])
