"""Epochs that fill a given time equal hand arithmetic."""

from __future__ import annotations

import pytest

from plankwise.core.errors import RecipeError
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.pruning import Pruning
from plankwise.run.domain.budget import factor_for, scaled_cost, scaled_steps, scaled_training
from plankwise.run.dry_run import StageCost
from plankwise.training.fit import Training

TRAINED = StageCost("a", 1, examples=10, steps=20, seconds_per_step=3.0, seconds=75.0)  # 60 s of steps, 15 s beside
PLAIN = StageCost("b", 1, examples=10, seconds=30.0)


def test_training_fills_what_is_left_of_the_time() -> None:
    factor = factor_for([TRAINED, PLAIN], 2.75, "it")
    assert factor == pytest.approx((165 - 45) / 60)
    scaled = [scaled_cost(each, factor) for each in (TRAINED, PLAIN)]
    assert [each.steps for each in scaled] == [40, 0]
    assert sum(each.seconds for each in scaled) == pytest.approx(165)


def test_without_a_budget_or_training_epochs_stay() -> None:
    assert factor_for([TRAINED], None, "it") == 1.0
    assert factor_for([PLAIN], 0.1, "it") == 1.0
    assert factor_for([], 1, "it") == 1.0


def test_a_stage_that_trains_takes_one_step_at_least() -> None:
    assert scaled_cost(TRAINED, 0.001).steps == 1


def test_a_budget_that_the_rest_alone_uses_up_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"minutes 0\.5: halved takes about 0\.8 min beside its training"):
        factor_for([TRAINED, PLAIN], 0.5, "halved")


def test_steps_keep_their_proportions() -> None:
    steps = (LayerSubset(layers=2, training=Training(epochs=0.3)), Pruning(target=2.0))
    first, second = scaled_steps(steps, 1 / 3)
    assert first == LayerSubset(layers=2, training=Training(epochs=0.1))
    assert second is steps[1]
    assert scaled_training(Training(epochs=2.0), 1 / 7).epochs == 0.2857
    assert scaled_training(Training(epochs=0.123456), 1.0).epochs == 0.123456
