"""Noise, other numbers than the score, and the trials that it takes, on tables whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crossed_trials import KEYS, crossed
from plankwise.evaluation.effects import Estimate, main_effects, table_of
from plankwise.evaluation.noise import in_place_of_score, noise_of, trials_to_decide


def test_the_noise_is_what_setting_and_seed_leave() -> None:
    found = [
        noise_of(table_of(crossed(lambda a, b, seed: a + b + 0.5 * seed, noise=0.1, draw=draw), KEYS))
        for draw in range(20)
    ]
    assert np.mean([each for each in found if each is not None]) == pytest.approx(0.1, rel=0.05)
    exact = noise_of(table_of(crossed(lambda a, b, seed: a + b + 0.5 * seed), KEYS))
    assert exact == pytest.approx(0, abs=1e-9)


def test_one_seed_says_nothing_of_the_noise() -> None:
    rows = [row for row in crossed(lambda a, b, seed: a) if row["seed"] == 1]
    assert rows
    assert noise_of(table_of(rows, KEYS)) is None


def test_another_number_takes_the_place_of_the_score_only_if_every_trial_has_it() -> None:
    rows = [{**row, "log_loss": 2 * row["score"]} for row in crossed(lambda a, b, seed: a)]
    table = table_of(rows, KEYS)
    turned = in_place_of_score(table, "log_loss", sign=-1.0)
    assert turned is not None
    effects, opposite = main_effects(table, "a", resamples=2), main_effects(turned, "a", resamples=2)
    assert [level.effect.value for level in opposite] == pytest.approx([-2 * level.effect.value for level in effects])
    assert in_place_of_score(table, "nowhere") is None
    rows[3]["log_loss"] = None
    assert in_place_of_score(table_of(rows, KEYS), "log_loss") is None


def test_trials_to_decide_equal_hand_arithmetic() -> None:
    def estimate(value: float, half: float) -> Estimate:
        return Estimate(value, value - half, value + half, trials=10, seeds=2, paired=True)

    # 1.96 standard errors on either side; 2.80 are needed
    assert trials_to_decide(estimate(1.0, 1.96)) == math.ceil(10 * (2.8016**2 - 1)) == 69
    assert trials_to_decide(estimate(-1.0, 1.96)) == 69
    assert trials_to_decide(estimate(3.0, 1.96)) == 0
    assert trials_to_decide(estimate(0.0, 1.96)) is None
    assert trials_to_decide(Estimate(1.0, None, None, trials=10, seeds=1, paired=True)) is None
