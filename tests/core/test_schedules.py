from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from plankwise.core.schedules import SCHEDULES, cubic

PROGRESS = [step / 40 for step in range(41)]
FORMULAS: dict[str, Callable[[float, float, float], float]] = {
    "linear": lambda start, full_at, at: min(1.0, (1 - start) / full_at * at + start),
    "constant": lambda start, full_at, at: start if at < full_at else 1.0,
    "cosine": lambda start, full_at, at: (
        start + (1 - start) * math.sin(math.pi / 2 * at / full_at) ** 2 if at < full_at else 1.0
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("start", "full_at"), [(0.1, 0.85), (0.3, 0.5), (0.5, 1.0), (1.0, 0.7), (0.2, 0.025)])
class TestSchedule:
    def test_equals_its_formula(self, name: str, start: float, full_at: float) -> None:
        schedule = SCHEDULES[name](start, full_at)
        expected = [FORMULAS[name](start, full_at, at) for at in PROGRESS]
        assert [schedule(at) for at in PROGRESS] == pytest.approx(expected, abs=1e-12)

    def test_begins_at_the_start_and_never_falls_nor_leaves_its_bounds(
        self, name: str, start: float, full_at: float
    ) -> None:
        rates = [SCHEDULES[name](start, full_at)(at) for at in PROGRESS]
        assert rates[0] == start
        assert rates == sorted(rates)
        assert rates[-1] == 1.0

    def test_is_exactly_one_from_full_at_on(self, name: str, start: float, full_at: float) -> None:
        schedule = SCHEDULES[name](start, full_at)
        assert {schedule(at) for at in [full_at, *PROGRESS, 1.0] if at >= full_at} == {1.0}

    def test_is_pure(self, name: str, start: float, full_at: float) -> None:
        schedule, other = SCHEDULES[name](start, full_at), SCHEDULES[name](start, full_at)
        forwards = [schedule(at) for at in PROGRESS]
        backwards = [schedule(at) for at in reversed(PROGRESS)]
        assert forwards == backwards[::-1] == [other(at) for at in PROGRESS]


@pytest.mark.parametrize(("name", "halfway"), [("linear", 0.6), ("constant", 0.2), ("cosine", 0.6)])
def test_halfway_by_hand(name: str, halfway: float) -> None:
    assert SCHEDULES[name](0.2, 0.8)(0.4) == pytest.approx(halfway)


def test_cosine_is_slow_fast_slow() -> None:
    rate = SCHEDULES["cosine"](0.0, 1.0)
    early, middle, late = (rate(at + 0.1) - rate(at) for at in (0.0, 0.45, 0.9))
    assert early == pytest.approx(late)
    assert middle > 5 * early


@pytest.mark.parametrize(("value", "start", "end"), [(0.9, 0.1, 0.7), (0.5, 0.0, 1.0), (0.97, 0.3, 0.35)])
def test_cubic_equals_the_formula_of_gradual_pruning(value: float, start: float, end: float) -> None:
    schedule = cubic(value, start, end)
    expected = [value + (0 - value) * (1 - (min(max(at, start), end) - start) / (end - start)) ** 3 for at in PROGRESS]
    assert [schedule(at) for at in PROGRESS] == pytest.approx(expected, abs=1e-12)
    assert [schedule(at) for at in PROGRESS] == sorted(schedule(at) for at in PROGRESS)
    assert {schedule(at) for at in (0.0, start)} == {0.0}
    assert {schedule(at) for at in (end, 1.0)} == {value}


def test_cubic_by_hand() -> None:
    assert cubic(0.8, 0.2, 0.6)(0.4) == pytest.approx(0.8 * 7 / 8)
