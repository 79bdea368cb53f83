"""Runs on pretrained encoders are made one by one, and add up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import shrink_encoders
from plankwise.core.hardware import environment
from results import class_of, store


def run(recipe: str, seed: int, value: float) -> dict[str, Any]:
    retained = {"value": value, "low": value - 0.02, "high": value + 0.01}
    return {"recipe": recipe, "seed": seed, "retained": retained}


def test_runs_of_earlier_sessions_are_kept_unless_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink_encoders, "RESULTS", tmp_path)
    stored = {"environment": environment(), "runs": [run("fast", 0, 0.9), run("balanced", 0, 0.8)]}
    assert store("shrink_e5_small", stored, tmp_path).parent.name == class_of(stored)
    made = [run("fast", 1, 0.98), run("balanced", 0, 0.97)]
    runs = shrink_encoders.with_earlier("e5-small", made)
    assert [(each["recipe"], each["seed"], each["retained"]["value"]) for each in runs] == [
        ("fast", 0, 0.9),
        ("fast", 1, 0.98),
        ("balanced", 0, 0.97),
    ]
    assert shrink_encoders.with_earlier("minilm-l6", made) == made


def test_over_seeds_every_bound_is_a_mean() -> None:
    fast = shrink_encoders.over_seeds([run("fast", 0, 0.9), run("fast", 1, 1.0), run("extreme", 0, 0.5)])["fast"]
    assert fast == pytest.approx({"value": 0.95, "low": 0.93, "high": 0.96})
    assert shrink_encoders.over_seeds([run("fast", 0, 0.9), {**run("fast", 1, 1.0), "retained": None}]) == {
        "fast": None
    }
