"""How noisy trials are, what else than the score they recorded, and how many of them it takes to decide something."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm

from plankwise.evaluation.effects import Estimate, TrialTable, codes_of

DECIDED = float(norm.ppf(0.975) + norm.ppf(0.8))  # standard errors that a value has to be from 0: 5 % level, 80 % power


def in_place_of_score(table: TrialTable, column: str, sign: float = 1.0) -> TrialTable | None:
    """Return the trials with another number that they recorded, times `sign`, as their score; None if one lacks it."""
    if column not in table.rows or table.rows[column].isna().any() or not len(table.rows):
        return None
    return TrialTable(table.keys, table.rows.assign(score=sign * table.rows[column].astype(np.float64)))


def noise_of(table: TrialTable) -> float | None:
    """Estimate the standard deviation of a trial's score once its setting and its seed are known.

    None where no setting was run with a second seed.
    """
    settings, seeds = codes_of(table, list(table.keys)), codes_of(table, ["seed"])
    columns = [codes[:, None] == np.arange(codes.max() + 1) for codes in (settings, seeds)]
    design = np.hstack(columns).astype(np.float64)
    freedom = len(design) - int(np.linalg.matrix_rank(design))
    if freedom <= 0:
        return None
    scores = table.rows["score"].to_numpy(dtype=np.float64)
    rest = scores - design @ np.linalg.lstsq(design, scores, rcond=None)[0]
    return float(np.sqrt((rest**2).sum() / freedom))


def trials_to_decide(estimate: Estimate) -> int | None:
    """Estimate how many more trials of the same kind would decide on which side of 0 a value is, with 80 % power.

    The width of an interval shrinks with the square root of the number of trials, and the value stays what it is. None
    without an interval, or at a value of 0.
    """
    if estimate.low is None or estimate.high is None or not estimate.value:
        return None
    error = (estimate.high - estimate.low) / (2 * float(norm.ppf(0.975)))
    return max(0, math.ceil(estimate.trials * ((DECIDED * error / estimate.value) ** 2 - 1)))
