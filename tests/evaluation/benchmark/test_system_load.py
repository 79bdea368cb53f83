"""Whether a machine was quiet: what its clocks tell, and what is warned about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plankwise.evaluation.benchmark.system_load import Clocks, Load, LoadMonitor, load_warnings, unsteady_warnings

QUIET = Load(seconds=10.0, cores=2, own=1.9, others=0.05, load_average=(2.0, 2.0))


def observed(start: Clocks, end: Clocks) -> Load:
    clocks = iter([start, end])
    with LoadMonitor(lambda: next(clocks)) as monitor:
        pass
    return monitor.load


def test_a_quiet_machine_gives_no_warning() -> None:
    assert load_warnings(QUIET, threads=2) == []


def test_other_processes_are_named() -> None:
    [said] = load_warnings(replace(QUIET, others=0.4), threads=2)
    assert said.startswith("other processes kept 0.40 of 2 cores busy while 2 threads were timed: ")


def test_other_processes_on_free_cores_do_no_harm() -> None:
    wide = replace(QUIET, cores=8, others=5.5)
    assert load_warnings(wide, threads=2) == []
    assert len(load_warnings(wide, threads=4)) == 1


def test_load_averages_are_the_fallback() -> None:
    unknown = replace(QUIET, others=None, load_average=(0.3, 2.0))
    assert load_warnings(unknown, threads=2) == []
    [said] = load_warnings(replace(unknown, load_average=(1.5, 2.0)), threads=2)
    assert said.startswith("the load average was 1.50 on 2 cores before 2 threads were timed: ")


def test_the_load_is_split_between_this_process_and_others() -> None:
    load = observed(Clocks(wall=100.0, own=7.0, busy=50.0), Clocks(wall=110.0, own=22.0, busy=69.0))
    assert (load.seconds, load.own) == (10.0, 1.5)
    assert load.others == pytest.approx((19.0 - 15.0) / 10)


def test_clocks_that_do_not_advance_say_nothing_of_others() -> None:
    assert observed(Clocks(wall=0.0, own=0.0, busy=50.0), Clocks(wall=10.0, own=1.0, busy=50.0)).others is None


def test_wide_rounds_are_named_and_one_outlier_is_not() -> None:
    [said] = unsteady_warnings({"steady": [2.0, 2.1, 2.0, 2.1, 9.0], "wild": [1.0, 2.0, 3.0, 4.0, 5.0]})
    assert said.endswith("the middle half of their ratios spans: wild (67%)")
    assert unsteady_warnings({"steady": [2.0, 2.1, 2.0, 2.1, 9.0]}) == []
