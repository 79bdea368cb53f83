"""What few rows can show, and which steps two candidates share."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from plankwise.core.records import Interval
from plankwise.search.budget.candidate import shared_steps
from plankwise.search.budget.evaluation import with_unseen_changes

CERTAIN = Interval(value=1.0, low=1.0, high=1.0)


@pytest.mark.parametrize("rows", [50, 500, 5000])
def test_rows_that_all_agree_prove_no_more_than_their_number(rows: int) -> None:
    exact = binomtest(rows, rows).proportion_ci(0.95, "exact").low
    assert with_unseen_changes(CERTAIN, 1.0, rows).low == pytest.approx(exact)


def test_a_bootstrap_that_saw_changes_is_left_alone() -> None:
    found = Interval(value=0.99, low=0.97, high=1.0)
    assert with_unseen_changes(found, 0.98, 500) == found


def test_steps_are_shared_from_the_first_on() -> None:
    one, two, other = ({"method": name} for name in ("vocabulary", "theseus", "pruning"))
    assert shared_steps((one, two, other), (one, two)) == 2
    assert shared_steps((one, two), (two, one)) == 0
