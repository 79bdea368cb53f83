"""Slices that lost more than the whole are flagged, and only these."""

from __future__ import annotations

import numpy as np
import pytest

from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.slices import (
    classes_of,
    compare_slices,
    is_right,
    quartiles,
    unknown_words,
    values_of,
)


def pair(right: np.ndarray, new_right: np.ndarray) -> Pair:
    """Two models of two classes; all labels are 0."""

    def logits(flags: np.ndarray) -> np.ndarray:
        return np.stack([flags, 1 - flags], axis=1).astype(float)

    return Pair(np.zeros(len(right), dtype=int), logits(right), logits(new_right))


def test_the_slice_that_lost_is_flagged() -> None:
    rows = 1000
    old, new = np.ones(rows), np.ones(rows)
    new[:60] = 0  # all that is lost is among the first 200
    slices = {
        "source": {"forum": np.arange(rows) < 200, "news": np.arange(rows) >= 200},
        "tiny": {"x": np.arange(rows) < 9},
    }
    found = compare_slices([pair(old, new)], slices, 500)
    assert [(each["by"], each["slice"], each["rows"], each["flagged"]) for each in found] == [
        ("source", "forum", 200, True),
        ("source", "news", 800, False),
    ]
    assert found[0]["difference"]["value"] == pytest.approx(-0.3)
    assert found[0]["beyond_whole"]["value"] == pytest.approx(-0.3 + 0.06)
    assert found[0]["baseline"] == 1.0
    assert found[1]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_a_loss_that_all_slices_share_flags_few() -> None:
    """By chance 2.5 % of slices are flagged."""
    draw, flagged, count = np.random.default_rng(0), 0, 0
    for _ in range(60):
        old, new = draw.random(400) < 0.9, draw.random(400) < 0.8
        halves = draw.random(400) < 0.5
        found = compare_slices([pair(old, new)], {"half": {"one": halves, "other": ~halves}}, 300)
        flagged, count = flagged + sum(each["flagged"] for each in found), count + len(found)
    assert count == 120
    assert flagged / count < 0.07


def test_seeds_are_averaged() -> None:
    one, other = np.ones(100), np.ones(100)
    other[:50] = 0
    found = compare_slices([pair(one, one), pair(one, other)], {"a": {"b": np.ones(100, dtype=bool)}}, 400)
    assert found[0]["difference"]["value"] == pytest.approx(-0.25)
    assert found[0]["difference"]["low"] < -0.4 < -0.1 < found[0]["difference"]["high"]  # seeds are drawn too


def test_quartiles_cover_every_example_once() -> None:
    values = np.random.default_rng(0).integers(1, 50, 200)
    parts = quartiles(values, "words")
    assert np.sum(list(parts.values()), axis=0).tolist() == [1] * 200
    assert len(parts) == 4
    assert all(name.endswith(" words") for name in parts)
    assert quartiles([3, 3, 3], "words") == {}
    two = quartiles([1, 1, 1, 2], "words")
    assert np.sum(list(two.values()), axis=0).tolist() == [1] * 4


def test_values_and_classes_are_cut_by_what_is_there() -> None:
    parts = values_of(["a", "b", "a", None])
    assert {name: part.tolist() for name, part in parts.items()} == {
        "a": [True, False, True, False],
        "b": [False, True, False, False],
        "(empty)": [False, False, False, True],
    }
    assert len(values_of([str(each) for each in range(100)])) == 20
    assert classes_of(np.array([0, 1]), ["x", "y"])["y"].tolist() == [False, True]
    assert classes_of(np.array([[1, 1], [0, 1]]), ["x", "y"])["x"].tolist() == [True, False]


def test_the_share_of_unknown_words_equals_hand_arithmetic() -> None:
    assert unknown_words(["Ein Haus", "ein neues altes HAUS", ""], ["ein altes haus"]).tolist() == [0, 0.25, 0]


def test_several_labels_are_right_together_or_not() -> None:
    assert is_right(np.array([[1, 0], [1, 0]]), np.array([[1.0, -1.0], [1.0, 1.0]])).tolist() == [True, False]
