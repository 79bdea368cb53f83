"""Outcomes of candidates with known figures, for tests that decide between them."""

from __future__ import annotations

from typing import Any

from plankwise.core.records import Interval
from plankwise.search.budget.candidate import Candidate, Outcome


def outcome(
    name: str = "one",
    *,
    retained: tuple[float, float, float] = (0.995, 0.99, 1.0),
    speedup: tuple[float, float, float] = (4.2, 4.0, 4.4),
    size_bytes: int = 10_000_000,
    rung: str = "pruning",
    certifies: bool = True,
    **candidate: Any,
) -> Outcome:
    """Make an outcome; intervals are (value, low, high)."""
    settings = {"runtime": "openvino", "precision": "int8", **candidate}
    return Outcome(
        candidate=Candidate(name=name, rung=rung, **settings),
        scores={"macro_f1": 0.8},
        retained=Interval(value=retained[0], low=retained[1], high=retained[2]),
        agreement=0.98,
        speedup=Interval(value=speedup[0], low=speedup[1], high=speedup[2]),
        reference="ONNX Runtime fp32",
        ms_per_text=1.0,
        size_bytes=size_bytes,
        parameters=1_000_000,
        train_seconds=0.0,
        seconds=60.0,
        certifies=certifies,
    )
