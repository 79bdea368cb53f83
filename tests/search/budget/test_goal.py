"""A budget: when it is met, what is nearest to it, and which budgets contradict themselves."""

from __future__ import annotations

import math

import pytest

from outcomes import outcome
from plankwise.core.errors import RecipeError
from plankwise.search.budget.goal import Goal, best_of, front


def test_lower_bounds_decide() -> None:
    goal = Goal(retain=0.99, speedup=4.0)
    assert goal.is_met(outcome())
    assert not goal.is_met(outcome(retained=(0.999, 0.9899, 1.0)))
    assert not goal.is_met(outcome(speedup=(5.0, 3.99, 6.0)))


def test_size_counts_where_it_is_asked_for() -> None:
    goal = Goal(retain=0.99, max_size_bytes=10_000_000)
    assert goal.is_met(outcome(speedup=(1.0, 0.9, 1.1)))
    assert not goal.is_met(outcome(size_bytes=10_000_001))


@pytest.mark.parametrize("value", [math.nan, 0.0, -1.0])
def test_no_number_meets_nothing(value: float) -> None:
    goal = Goal(retain=0.01)
    assert goal.shortfall(outcome(retained=(value, value, value))) == math.inf
    assert not goal.is_met(outcome(retained=(value, value, value)))


def test_what_certifies_nothing_is_never_chosen() -> None:
    quick = outcome("dynamic", speedup=(9.0, 9.0, 9.0), certifies=False)
    assert not Goal(speedup=4.0).is_met(quick)
    assert best_of(Goal(), [quick]) is None
    assert front([quick]) == []


def test_the_fastest_that_meets_the_budget_is_chosen() -> None:
    slow, fast = outcome("slow"), outcome("fast", speedup=(6.0, 5.0, 7.0))
    missed = outcome("missed", speedup=(9.0, 9.0, 9.0), retained=(0.9, 0.88, 0.92))
    assert best_of(Goal(speedup=4.0), [slow, missed, fast]) == fast


def test_else_the_nearest_is_chosen_and_a_point_of_score_weighs_more_than_a_percent_of_speed() -> None:
    goal = Goal(retain=0.99, speedup=4.0)
    slower = outcome("slower", speedup=(3.8, 3.6, 4.0))  # 10 % too slow
    worse = outcome("worse", retained=(0.98, 0.97, 0.99))  # 2 % too bad
    assert best_of(goal, [slower, worse]) == slower
    assert best_of(goal, [worse, outcome("far", speedup=(1.0, 1.0, 1.0))]) == worse


def test_the_front_leaves_out_what_another_beats_in_both() -> None:
    one, two = outcome("one", speedup=(2.0, 2, 2)), outcome("two", speedup=(4.0, 4, 4), retained=(0.98, 0.97, 0.99))
    beaten = outcome("beaten", speedup=(1.5, 1.5, 1.5), retained=(0.99, 0.98, 1.0))
    assert [each.candidate.name for each in front([beaten, one, two])] == ["two", "one"]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"retain": 1.2}, "--retain 1.2: a share of the score; allowed: above 0, up to 1"),
        ({"retain": 0.0}, "--retain 0"),
        ({"speedup": 0.5}, "--speedup 0.5: times as fast; allowed: 1 to 10,000"),
        ({"max_size_bytes": 0}, "--max-size-mb 0"),
    ],
)
def test_a_budget_that_contradicts_itself_is_refused(budget: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Goal(**budget)  # type: ignore[arg-type]
