"""What a study will cost, before anything is trained: trials counted, one of them rehearsed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from plankwise.core.recipe import to_plain
from plankwise.methods.method import Method
from plankwise.run.dry_run import estimate
from plankwise.run.recipe import Recipe
from plankwise.search.settings import Plan, Setting
from plankwise.search.storage import check_storage
from plankwise.search.study import probes
from plankwise.training.fit import planned_steps


def estimate_study(plan: Plan) -> dict[str, Any]:
    """Count settings, trials and baselines, and say roughly how many seconds they take on this machine, one worker.

    Seconds of a step are those of the first setting; steps are counted for each setting of a grid. For a sampler, whose
    settings are not known yet, every trial counts as the first value of each parameter.
    """
    if plan.study.storage is not None:
        check_storage(plan.study.storage)
    settings = plan.grid or (_first(plan),) * plan.settings_count
    rows = estimate(plan.checked(settings[0], plan.study.seeds[0]))
    steps = rows[-len(plan.recipe(settings[0], 0).steps) :]
    recipes = [plan.recipe(setting, seed) for setting in settings for seed in plan.study.seeds]
    trials = [sum(_seconds(row, step) for row, step in zip(steps, recipe.steps, strict=False)) for recipe in recipes]
    baselines = {json.dumps(to_plain(_without_steps(recipe)), sort_keys=True) for recipe in recipes}
    before = sum(row["seconds"] for row in rows[: len(rows) - len(steps)])
    return {
        "name": plan.study.name,
        "settings": plan.settings_count,
        "seeds": len(plan.study.seeds),
        "trials": len(recipes),
        "baselines": len(baselines),
        "seconds_per_baseline": before,
        "seconds_per_trial": sum(trials) / len(trials),
        "seconds": before * len(baselines) + sum(trials),
    }


def _seconds(row: dict[str, Any], step: Method) -> float:
    if step.training is None:
        return float(row["seconds"])
    return float(row["seconds_per_step"]) * planned_steps(row["examples"], step.training)


def _first(plan: Plan) -> Setting:
    return {key: probes(values)[0] for key, values in plan.study.space[0].items()}


def _without_steps(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, steps=())


def cost_lines(cost: dict[str, Any]) -> list[str]:
    """Show it."""
    return [
        f"{cost['name']}: {cost['settings']} settings × {cost['seeds']} seeds = {cost['trials']} trials, "
        f"about {cost['seconds_per_trial']:.0f} s each",
        f"{cost['baselines']} baselines, about {cost['seconds_per_baseline']:.0f} s each",
        f"about {cost['seconds'] / 60:.0f} min of training with one worker; nothing has been trained",
    ]
