"""What a short training is, and which settings are worth a full one."""

from __future__ import annotations

from typing import Any

import pytest

from plankwise.core.records import Interval
from plankwise.search.budget.candidate import Candidate, Outcome
from plankwise.search.budget.goal import Goal
from plankwise.search.pareto.fidelity import full_seconds, shortened, survivors


def step(epochs: float | None) -> dict[str, Any]:
    return {"method": "theseus", "training": None if epochs is None else {"epochs": epochs, "batch_size": 8}}


def outcome(
    name: str, kept: float, speed: float, *, rung: str = "proxy", size: int = 100, margin: float = 0.01
) -> Outcome:
    return Outcome(
        candidate=Candidate(name=name, rung=rung, steps=(step(1.0),), runtime="onnx", precision="fp32"),
        scores={"macro_f1": kept},
        retained=Interval(value=kept, low=kept - margin, high=kept + margin),
        agreement=kept,
        speedup=Interval(value=speed, low=0.98 * speed, high=1.02 * speed),
        reference="ONNX Runtime fp32",
        ms_per_text=1.0,
        size_bytes=size,
        parameters=10,
        train_seconds=20.0,
        seconds=50.0,
    )


def names(found: list[Outcome]) -> list[str]:
    return [each.candidate.name for each in found]


@pytest.mark.parametrize(("epochs", "cut"), [(8.0, 2.0), (4.0, 1.0), (1.0, 0.5), (0.5, 0.5), (0.25, 0.25)])
def test_trainings_are_cut_to_a_quarter_and_never_below_half_an_epoch(epochs: float, cut: float) -> None:
    given = (step(None), step(epochs))
    found = shortened(given)
    assert found[1]["training"] == {"epochs": cut, "batch_size": 8}
    assert found[0] == step(None)
    assert given[1]["training"]["epochs"] == epochs


def test_the_front_survives_and_what_is_surely_beaten_does_not() -> None:
    best = [outcome("fast", 0.95, 6.0), outcome("slow", 0.99, 2.0)]
    beaten = [outcome(f"beaten {at}", 0.9, 1.5) for at in range(4)]
    assert set(names(survivors(Goal(), [*beaten, *best]))) == {"fast", "slow"}


def test_what_may_be_on_the_front_survives_within_a_third() -> None:
    best = outcome("best", 0.97, 4.0)
    near = [outcome(f"near {at}", 0.965 - 0.001 * at, 3.95) for at in range(5)]
    found = names(survivors(Goal(), [*near, best, *(outcome(f"far {at}", 0.8, 1.1) for at in range(3))]))
    assert len(found) == 3
    assert set(found) == {"best", "near 0", "near 1"}


def test_what_is_too_slow_or_too_large_does_not_survive_since_training_changes_neither() -> None:
    given = [outcome("slow", 0.99, 2.0), outcome("large", 0.98, 5.0, size=10**9), outcome("able", 0.9, 5.0)]
    assert names(survivors(Goal(speedup=4.0, max_size_bytes=10**6), given)) == ["able"]
    assert names(survivors(Goal(speedup=400.0), given)), "the nearest is trained where none is fast enough"


def test_what_has_been_trained_in_full_is_not_trained_again_and_beats_no_proxy() -> None:
    whole = outcome("whole", 0.99, 9.0, rung="full")
    assert names(survivors(Goal(), [whole, outcome("proxy", 0.9, 2.0)])) == ["proxy"]


def test_those_that_miss_the_budget_least_come_first() -> None:
    given = [outcome("far", 0.90, 9.0), outcome("near", 0.97, 5.0), outcome("nearest", 0.985, 4.0)]
    assert names(survivors(Goal(retain=0.99, speedup=3.0), given)) == ["nearest", "near", "far"]


def test_a_full_training_is_estimated_by_its_proxy() -> None:
    assert full_seconds(outcome("any", 0.9, 2.0), (step(4.0),)) == 50.0 + 3 * 20.0
