"""Trainings that take a given time: epochs are scaled by the speed that a rehearsal finds on this machine."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

from plankwise.core.errors import RecipeError
from plankwise.methods.method import Method
from plankwise.run.dry_run import StageCost
from plankwise.training.fit import Training

logger = logging.getLogger(__name__)


def factor_for(costs: Sequence[StageCost], minutes: float | None, what: str) -> float:
    """Return the factor of all epochs with which these stages take so many minutes together.

    Args:
        costs: of the stages with their epochs as they are.
        minutes: that they may take; None for the epochs as they are.
        what: they are, for messages.

    Raises:
        RecipeError: if what they do beside training takes longer.
    """
    trained = sum(each.steps * each.seconds_per_step for each in costs)
    if minutes is None or not trained:
        return 1.0
    beside = sum(each.seconds for each in costs) - trained
    if beside >= 60 * minutes:
        raise RecipeError(
            f"minutes {minutes:g}: {what} takes about {beside / 60:.1f} min beside its training; allowed: more"
        )
    return (60 * minutes - beside) / trained


def scaled_cost(cost: StageCost, factor: float) -> StageCost:
    """Return a stage's cost with its epochs scaled; one that trains takes one step at least."""
    if not cost.steps:
        return cost
    steps = max(1, round(cost.steps * factor))
    return dataclasses.replace(cost, steps=steps, seconds=cost.seconds + (steps - cost.steps) * cost.seconds_per_step)


def scaled_training(training: Training, factor: float) -> Training:
    """Return a training of so many times the epochs, which are rounded to four digits unless they stay."""
    if factor == 1.0:
        return training
    return dataclasses.replace(training, epochs=float(f"{training.epochs * factor:.4g}"))


def scaled_steps(steps: Sequence[Method], factor: float) -> tuple[Method, ...]:
    """Return steps whose trainings have so many times their epochs."""

    def scaled(step: Method) -> Method:
        if step.training is None:
            return step
        return dataclasses.replace(step, training=scaled_training(step.training, factor))  # type: ignore[type-var]

    return tuple(map(scaled, steps))
