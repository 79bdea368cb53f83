"""What a study costs, before anything is trained: its trials are counted and one of them is rehearsed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from plankwise.core.errors import RecipeError
from plankwise.core.recipe import to_plain
from plankwise.evaluation.effects import short_names
from plankwise.methods.method import Method
from plankwise.run.dry_run import estimate
from plankwise.run.pipeline import Checked
from plankwise.search.power import smallest_effects
from plankwise.search.storage import check_storage
from plankwise.search.study import probes
from plankwise.search.study_plan import StudyPlan
from plankwise.training.fit import planned_steps

Rehearse = Callable[[Checked], list[dict[str, Any]]]


def estimate_study(plan: StudyPlan, rehearse: Rehearse = estimate) -> dict[str, Any]:
    """Count settings, trials and baselines, and estimate their seconds on this machine with one worker.

    Seconds per step are those of the first setting; the number of steps is computed for each setting of a grid. A
    sampler's settings are not known yet: every trial counts as the first value of each parameter.

    Args:
        plan: the study, checked.
        rehearse: estimates the stages of one run, as `run.dry_run.estimate` does.
    """
    if plan.study.storage is not None:
        check_storage(plan.study.storage)
    first = {key: probes(values)[0] for key, values in plan.study.space[0].items()}
    settings = plan.grid or (first,) * plan.settings_count
    recipes = [plan.recipe(setting, seed) for setting in settings for seed in plan.study.seeds]
    rows = rehearse(plan.checked(settings[0], plan.study.seeds[0]))
    before, steps = rows[: -len(recipes[0].steps)], rows[-len(recipes[0].steps) :]
    trials = [sum(_seconds(row, step) for row, step in zip(steps, recipe.steps, strict=False)) for recipe in recipes]
    # Trials that differ in their steps alone share a baseline; the seed is part of the recipe.
    baselines = {json.dumps(to_plain(dataclasses.replace(recipe, steps=())), sort_keys=True) for recipe in recipes}
    seconds_per_baseline = sum(row["seconds"] for row in before)
    return {
        "name": plan.study.name,
        "settings": plan.settings_count,
        "seeds": len(plan.study.seeds),
        "trials": len(recipes),
        "baselines": len(baselines),
        "seconds_per_baseline": seconds_per_baseline,
        "seconds_per_trial": sum(trials) / len(trials),
        "seconds": seconds_per_baseline * len(baselines) + sum(trials),
        "smallest_effects": smallest_effects(plan),
    }


def _seconds(row: dict[str, Any], step: Method) -> float:
    if step.training is None:  # such a step measures and solves; its seconds do not depend on the setting
        return float(row["seconds"])
    return float(row["seconds_per_step"]) * planned_steps(row["examples"], step.training)


def cost_lines(cost: dict[str, Any]) -> list[str]:
    """Format the estimate for the terminal."""
    return [
        f"{cost['name']}: {cost['settings']} settings × {cost['seeds']} seeds = {cost['trials']} trials, "
        f"about {cost['seconds_per_trial']:.0f} s each",
        f"{cost['baselines']} baselines, about {cost['seconds_per_baseline']:.0f} s each",
        f"about {cost['seconds'] / 60:.0f} min of training with one worker; nothing has been trained",
        *_power_lines(cost["smallest_effects"]),
    ]


def _power_lines(effects: dict[str, float]) -> list[str]:
    if not effects:
        return [
            "what it can decide is estimated from `noise`, the deviation between trials that another study.json has"
        ]
    names = short_names(list(effects))
    shown = ", ".join(f"{names[key]} {effect:.4f}" for key, effect in effects.items())
    return [f"with 80 % power it decides differences between one value and the others of at least: {shown}"]


def check_budget(plan: StudyPlan, cost: dict[str, Any]) -> None:
    """Check that two trials of each setting, with their baselines, fit into the minutes of a study.

    Args:
        plan: the study, checked.
        cost: by `estimate_study`.

    Raises:
        RecipeError: naming how many minutes they need.
    """
    if plan.study.minutes is None:
        return
    needed = min(1.0, 2 / cost["seeds"]) * cost["seconds"] / 60
    if needed > plan.study.minutes:
        raise RecipeError(
            f"{plan.file.where(('minutes',))}: {plan.study.minutes:g} min do not hold two trials of each setting, "
            f"which take about {needed:.0f} min; allowed: more minutes, or fewer settings"
        )
