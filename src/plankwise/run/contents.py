"""What the folder of a run contains, and the part of it that is run again when steps change."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plankwise.core.documents import read_yaml
from plankwise.core.errors import OutputError, RecipeError
from plankwise.core.paths import remove
from plankwise.core.recipe import to_plain, validate
from plankwise.evaluation.saved_predictions import PREDICTIONS
from plankwise.methods.method import Method
from plankwise.run.recipe import Recipe
from plankwise.training.fit import CURVES

RECIPE, STAGE = "recipe.yaml", "stage.json"
PRETRAINED, BASELINE, STEPS = "pretrained", "baseline", "steps"
MODEL, REPORT = "model", "report.html"
_CONFIG = "config.json"  # without it a folder holds no model


def stage_of(number: int, step: Method) -> str:
    """Return the folder of a step in its run; steps are numbered from 1."""
    return f"{STEPS}/{number:02d}-{step.method}"


def has_model(stage: Path) -> bool:
    """Return whether a stage is complete and its model was not dropped."""
    return (stage / STAGE).exists() and (stage / _CONFIG).exists()


def remove_model(stage: Path) -> None:
    """Remove the model of a complete stage; what is known of it stays."""
    (stage / _CONFIG).unlink(missing_ok=True)  # first: a part of a model must not pass for one
    for each in stage.iterdir():
        if each.name not in (STAGE, CURVES):
            remove(each)


def remove_results(run: Path, from_step: int) -> None:
    """Remove the steps from a number on, the last first, and everything that follows them."""
    for name in (REPORT, PREDICTIONS, MODEL):
        remove(run / name)
    for stage in sorted((run / STEPS).glob("*"), reverse=True):
        number = _number_of(stage.name)
        if number is not None and number >= from_step:
            (stage / STAGE).unlink(missing_ok=True)  # first: a part of a stage must not pass for a complete one
            remove(stage)


def recipe_in(run: Path) -> Any:
    """Return the recipe of a run as plain values, with defaults for keys that are newer than it; `None` if damaged."""
    try:
        found = read_yaml(run / RECIPE)[1]
    except RecipeError:
        return None
    try:
        return to_plain(validate(found, Recipe))
    except RecipeError:
        return found


def differing(one: Any, other: Mapping[str, Any]) -> list[str]:
    """List the keys in which two recipes differ; there are none to name where one is no recipe."""
    if not isinstance(one, Mapping):
        return []
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path) -> None:
    """Check that what a folder holds was made as it would be made now.

    Raises:
        OutputError: naming what differs.
    """
    names = differing(before, now)
    if names:
        raise OutputError(f"{out} holds another experiment (it differs in {', '.join(names)}); choose another folder")


def step_number(step: str, steps: Sequence[Method], run: Path) -> int:
    """Return the number of a step that is given by its number or by the name of its folder.

    Args:
        step: as given, such as `3` or `03-quantization`.
        steps: of the new recipe.
        run: folder of the run; steps of its recipe may be named as well.

    Raises:
        OutputError: if there is no such step.
    """
    names = [stage_of(number, each).removeprefix(f"{STEPS}/") for number, each in enumerate(steps, 1)]
    there = sorted(each.name for each in (run / STEPS).glob("*") if _number_of(each.name) is not None)
    last = len(names) + 1  # one after the last step: the end alone is measured again
    number = int(step) if step.isdecimal() else _number_of(step) if step in {*names, *there} else None
    if number is None or not 1 <= number <= last:
        allowed = ", ".join([f"1 to {last}", *dict.fromkeys([*names, *there])])
        raise OutputError(f"--from {step}: there is no such step; allowed: {allowed}")
    return number


def check_rerun(run: Path, recipe: Mapping[str, Any], from_step: int) -> None:
    """Check that a folder holds a run of a recipe that agrees with this one in all but the steps from a number on.

    Raises:
        OutputError: naming what differs or is missing.
    """
    if not (run / RECIPE).exists():
        raise OutputError(f"{run} holds no run, so there are no steps to run again; leave out --from")
    other = recipe_in(run)
    names = differing(other, {**recipe, "steps": other.get("steps")}) if isinstance(other, Mapping) else ["everything"]
    if not names:
        kept, mine = other["steps"][: from_step - 1], recipe["steps"][: from_step - 1]
        if len(kept) < from_step - 1 or kept != mine:
            pairs = zip(kept, mine, strict=False)
            names = [
                f"steps.{next((at for at, (one, new) in enumerate(pairs) if one != new), min(len(kept), len(mine)))}"
            ]
    if names:
        raise OutputError(
            f"{run} holds another recipe's run (it differs in {', '.join(names)}); allowed with --from {from_step}: "
            f"other steps from number {from_step} on"
        )
    _check_start(run, other["steps"], from_step)


def _check_start(run: Path, steps: Sequence[Mapping[str, Any]], from_step: int) -> None:
    """Refuse to go on from a stage that is not complete, or whose model was dropped."""
    stages = [BASELINE, *(f"{STEPS}/{number:02d}-{step['method']}" for number, step in enumerate(steps, 1))]
    before = stages[from_step - 1]
    if not (run / before / STAGE).exists():
        raise OutputError(f"{run / before} is not complete, so nothing can go on from it; --resume continues the run")
    if not has_model(run / before):
        left = [str(number) for number, stage in enumerate(stages, 1) if has_model(run / stage)]
        raise OutputError(
            f"the model in {run / before} was dropped, as keep: last asks for; allowed: --from {', '.join(left)}"
        )


def _number_of(name: str) -> int | None:
    found = re.fullmatch(r"(\d+)-\w+", name)
    return None if found is None else int(found[1])
