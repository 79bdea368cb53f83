"""Verdicts at a margin, the examples that they need, and corrections for their number, by hand arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from plankwise.core.records import Interval
from plankwise.evaluation.noninferiority import holm, judged, more_examples, p_value, verdict_of


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (-0.009, 0.0, 0.009, "non-inferior"),
        (-0.01, -0.005, 0.0, "non-inferior"),
        (-0.02, -0.005, 0.01, "cannot tell"),
        (-0.03, -0.02, -0.0101, "inferior"),
        (-0.03, -0.02, -0.0099, "cannot tell"),
    ],
)
def test_the_interval_is_compared_with_the_margin(low: float, value: float, high: float, verdict: str) -> None:
    assert verdict_of(Interval(value=value, low=low, high=high), 0.01) == verdict


def test_the_examples_that_are_missing_equal_hand_arithmetic() -> None:
    # A standard error of 0.01 has to become 0.01 / 2.80: 7.85 times the examples.
    difference = Interval(value=0.0, low=-0.0196, high=0.0196)
    assert more_examples(difference, 0.01, 1000) == pytest.approx(6849, abs=3)
    assert more_examples(Interval(value=-0.02, low=-0.05, high=0.01), 0.01, 1000) is None
    assert more_examples(Interval(value=0.0, low=-0.005, high=0.005), 0.01, 1000) == 0
    found = judged(difference, 0.01, 1000)
    assert (found["verdict"], found["margin"]) == ("cannot tell", 0.01)
    assert found["more_examples"] == more_examples(difference, 0.01, 1000)


def test_the_sample_size_it_asks_for_decides() -> None:
    """Simulated: with the examples asked for, 80 % of studies show non-inferiority."""
    draw, error, rows = np.random.default_rng(0), 0.01, 1000
    more = more_examples(Interval(value=0.0, low=-1.96 * error, high=1.96 * error), 0.01, rows)
    assert more is not None
    shrunk = error * np.sqrt(rows / (rows + more))
    shown = draw.normal(0.0, shrunk, 20000) - 1.96 * shrunk >= -0.01
    assert shown.mean() == pytest.approx(0.8, abs=0.01)


def test_a_p_value_is_never_zero_and_leaves_out_what_is_undefined() -> None:
    assert p_value(np.zeros(99), 0.01) == pytest.approx(1 / 100)
    assert p_value(np.array([-0.02, 0.0, np.nan, 0.0]), 0.01) == pytest.approx(2 / 4)


def test_holm_equals_hand_arithmetic_and_never_falls() -> None:
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
