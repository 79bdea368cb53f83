"""Cheap proxies first: a setting is measured with short trainings, and only what survives is trained in full.

Two rungs of successive halving (Jamieson, Talwalkar 2016, arXiv 1502.07943). Speed and size of a model do not depend on
how long it was trained, so a proxy measures them as they are; what it may get wrong is how much of the score is kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from plankwise.search.budget.candidate import Outcome
from plankwise.search.budget.goal import Goal, front

PROXY, FULL = "proxy", "full"  # rungs of candidates
SHARE = 0.25  # of a training's epochs
FEWEST_EPOCHS = 0.5  # below, a training is not cut: its warm-up would be most of it
SURVIVORS = 1 / 3  # of all settings, at most, beside the front
Steps = tuple[dict[str, Any], ...]


def shortened(steps: Steps) -> Steps:
    """Return the steps with a quarter of their epochs, but at least half an epoch; what trains less stays as it is."""
    cut = copy.deepcopy(steps)
    for step in cut:
        training = step.get("training")
        if training is not None:
            epochs = float(training["epochs"])
            training["epochs"] = min(epochs, max(FEWEST_EPOCHS, SHARE * epochs))
    return cut


def survivors(goal: Goal, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Choose the proxies that are trained in full, the most promising first.

    These are the front, and those that might be on it: no other one is better in both, speed and retained performance,
    by its lower bounds against their upper ones. A third of all settings at most, or the front if that is more. Nothing
    survives that is too slow or too large for the budget by its upper bound, since training changes neither, unless all
    are. Only proxies are compared with each other: beside what needs no training, a short training looks worse than it
    is.

    Args:
        goal: the budget.
        outcomes: of all settings that were measured with short trainings or without any.
    """
    proxies = [each for each in outcomes if each.candidate.rung == PROXY and each.certifies]
    able = [each for each in proxies if _may_meet(goal, each)] or proxies
    on_front = front(able)
    near = [each for each in able if each not in on_front and not any(_surely_beats(one, each) for one in able)]
    near.sort(key=lambda each: goal.shortfall(each))
    most = max(len(on_front), math.ceil(SURVIVORS * len(outcomes)))
    return sorted([*on_front, *near][:most], key=lambda each: (goal.shortfall(each), -each.speedup.low))


def _may_meet(goal: Goal, outcome: Outcome) -> bool:
    fast = goal.speedup is None or outcome.speedup.high >= goal.speedup
    return fast and (goal.max_size_bytes is None or outcome.size_bytes <= goal.max_size_bytes)


def _surely_beats(one: Outcome, other: Outcome) -> bool:
    return one.retained.low > other.retained.high and one.speedup.low > other.speedup.high


def full_seconds(proxy: Outcome, whole: Steps) -> float:
    """Estimate the seconds of a full measurement from those of its proxy."""
    cut = sum(float(step["training"]["epochs"]) for step in proxy.candidate.steps if step.get("training"))
    full = sum(float(step["training"]["epochs"]) for step in whole if step.get("training"))
    factor = full / cut if cut > 0 else 1.0
    return proxy.seconds + (factor - 1.0) * proxy.train_seconds
