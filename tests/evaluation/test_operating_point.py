"""Thresholds of a wanted precision against a search over all of them."""

from __future__ import annotations

import numpy as np
import pytest

from plankwise.evaluation.operating_point import at_threshold, class_scores, threshold_for


@pytest.mark.parametrize("seed", range(20))
def test_the_threshold_is_the_lowest_that_is_precise_enough(seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, 12, 60) / 12  # many ties
    flags = draw.random(60) < scores
    found = threshold_for(flags, scores, 0.8)
    enough = [each for each in np.unique(scores) if flags[scores >= each].mean() >= 0.8]
    assert found == (min(enough) if enough else None)


def test_precision_recall_and_share_equal_hand_arithmetic() -> None:
    flags, scores = np.array([1, 0, 1, 1]), np.array([0.9, 0.8, 0.7, 0.1])
    point = at_threshold(flags, scores, 0.7)
    assert [point.precision, point.recall, point.flagged] == pytest.approx([2 / 3, 2 / 3, 0.75])
    assert at_threshold(flags, scores, 0.95).precision is None
    assert at_threshold(flags, scores, 0.95).recall == 0


def test_a_precision_that_nothing_reaches_has_no_threshold() -> None:
    assert threshold_for(np.array([0, 1]), np.array([0.9, 0.1]), 0.9) is None


def test_the_scores_of_a_class_are_its_probabilities() -> None:
    flags, scores = class_scores(np.array([0, 1]), np.log(np.array([[0.8, 0.2], [0.3, 0.7]])), 1)
    assert flags.tolist() == [False, True]
    assert scores == pytest.approx([0.2, 0.7])
    flags, scores = class_scores(np.array([[1, 0], [1, 1]]), np.zeros((2, 2)), 1)
    assert flags.tolist() == [False, True]
    assert scores == pytest.approx([0.5, 0.5])
