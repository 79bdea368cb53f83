"""The settings of hyperparameters that a study tries: made of its recipe, and checked before anything is trained."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plankwise.core.errors import MethodError, ModelError, RecipeError
from plankwise.core.recipe import locate, override, parse_override, read_recipe, to_plain, validate
from plankwise.core.seeds import mix_seed
from plankwise.data.task import Task
from plankwise.evaluation.effects import short_names
from plankwise.run.pipeline import Checked, check
from plankwise.run.recipe import Recipe
from plankwise.search.study import Range, Study, probes

Setting = dict[str, Any]  # key path to value


@dataclass(frozen=True)
class Plan:
    """A study that has been checked.

    Attributes:
        study: as given, with every value of the space as the recipe reads it.
        path: of its file.
        base: the recipe that is varied, as data.
        grid: the settings of a grid in the order they are tried; nothing for a sampler.
        task: without its test split; no trial ever holds that.
    """

    study: Study
    path: Path
    base: dict[str, Any]
    grid: tuple[Setting, ...]
    task: Task

    @property
    def keys(self) -> list[str]:
        """Name the parameters."""
        return list(self.study.space[0])

    @property
    def settings_count(self) -> int:
        """Count the settings to try, each with every seed."""
        return len(self.grid) or int(self.study.trials or 0)

    def recipe(self, setting: Setting, seed: int) -> Recipe:
        """Make the recipe of one trial."""
        return _recipe(self.path, self.base, setting, seed)

    def checked(self, setting: Setting, seed: int) -> Checked:
        """Check the recipe of one trial against its model and the task."""
        return check(self.recipe(setting, seed), self.task)

    def definition(self) -> dict[str, Any]:
        """Give what makes it this study and no other, as plain values; where it is stored does not."""
        plain = to_plain(self.study)
        kept = {key: value for key, value in plain.items() if key not in ("storage", "keep_models", "recipe")}
        return {**kept, "recipe": self.base, "data_hashes": dict(self.task.hashes)}


def read_study(path: Path, overrides: Sequence[str] = ()) -> Plan:
    """Read a study, load its task once, and check every setting before anything is trained.

    Args:
        path: of its file.
        overrides: of the recipe that is varied, such as `model.source=FOLDER`; they go before what the study fixes.

    Raises:
        RecipeError: with file and line, if a key path or value is wrong.
    """
    study = read_recipe(path, Study)
    fixed = {**study.fixed, **dict(parse_override(each) for each in overrides)}
    study = validate({**to_plain(study), "fixed": fixed}, Study, lambda place: "--set")
    base = _base(study, path)
    first = {key: probes(values)[0] for key, values in study.space[0].items()}
    recipe = _recipe(path, base, first, study.seeds[0])
    if not recipe.steps:
        raise RecipeError(f"{locate(path, ('recipe',))}: a study compares compressed models; its recipe has no steps")
    grids = [_typed(path, base, grid, study.seeds[0]) for grid in study.space]
    study = dataclasses.replace(study, space=grids)
    plan = Plan(study, path, base, _grid(study), recipe.task.load().without_test())
    _check_settings(plan)
    return plan


def _base(study: Study, path: Path) -> dict[str, Any]:
    """Read the recipe that the study varies and apply what is fixed."""
    base, origin = study.recipe, path
    if isinstance(base, Path):
        origin = path.parent / base
        base = read_recipe(origin, dict[str, Any])
    base = copy.deepcopy(base)
    for key, value in study.fixed.items():
        override(base, key, value, f"{locate(path, ('fixed', key))}: {key}")

    def where(place: tuple[int | str, ...]) -> str:
        own = _nearest(place, study.fixed)
        if own is not None:
            return locate(path, ("fixed", own))
        return locate(path, ("recipe", *place)) if origin == path else locate(origin, place)

    validate({**base, "seed": study.seeds[0]}, Recipe, where)
    return base


def _recipe(path: Path, base: dict[str, Any], setting: Setting, seed: int) -> Recipe:
    data = {**copy.deepcopy(base), "seed": seed}
    for key, value in setting.items():
        override(data, key, copy.deepcopy(value), f"{_in_space(path, key)}: {key}")

    def where(place: tuple[int | str, ...]) -> str:
        own = _nearest(place, setting)
        return locate(path, ("space",)) if own is None else _in_space(path, own)

    return validate(data, Recipe, where)


def _nearest(place: tuple[int | str, ...], keys: dict[str, Any]) -> str | None:
    """Find the key path that leads to a place in the recipe, or from there on."""
    dotted = ".".join(str(part) for part in place)
    return next((key for key in keys if f"{dotted}.".startswith(f"{key}.")), None) or next(
        (key for key in keys if dotted and key.startswith(f"{dotted}.")), None
    )


def _in_space(path: Path, key: str) -> str:
    whole = locate(path, ("space",))
    places = [locate(path, ("space", key)), *(locate(path, ("space", number, key)) for number in range(9))]
    return next((place for place in places if place != whole), whole)


def _typed(path: Path, base: dict[str, Any], grid: dict[str, Any], seed: int) -> dict[str, Any]:
    """Check each value alone and write it as the recipe reads it: 1e-4, which YAML takes for text, as a number."""
    first = {key: probes(values)[0] for key, values in grid.items()}
    typed: dict[str, Any] = {}
    for key, values in grid.items():
        read = [_value_at(_recipe(path, base, {**first, key: each}, seed), key) for each in probes(values)]
        typed[key] = values if isinstance(values, Range) else read
    return typed


def _value_at(recipe: Recipe, key: str) -> Any:
    value = to_plain(recipe)
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def _grid(study: Study) -> tuple[Setting, ...]:
    """List the settings, each once, in a seeded random order, so that one that is cut short is balanced."""
    if study.sampler != "grid":
        return ()
    products = [
        dict(zip(grid, each, strict=True)) for grid in study.space for each in itertools.product(*grid.values())
    ]
    distinct = list({json.dumps(setting, sort_keys=True): setting for setting in products}.values())
    random.Random(mix_seed(study.name, "grid")).shuffle(distinct)
    return tuple(distinct[: study.trials])


def _check_settings(plan: Plan) -> None:
    """Plan every setting of a grid, or the ends and values of a sampler's space one by one."""
    first = {key: probes(values)[0] for key, values in plan.study.space[0].items()}
    alone = [{**first, key: value} for key, values in plan.study.space[0].items() for value in probes(values)]
    for setting in plan.grid or alone:
        try:
            plan.checked(setting, plan.study.seeds[0])
        except (MethodError, ModelError) as error:
            raise type(error)(f"{locate(plan.path, ('space',))}: with {shown(setting)}: {error}") from None


def shown(setting: Setting) -> str:
    """Write a setting on one line, keys as short as they may be."""
    short = short_names(list(setting))
    return ", ".join(f"{short[key]}={value}" for key, value in setting.items())


def trial_name(setting: Setting, seed: int) -> str:
    """Name a trial's folder: the same setting and seed give the same name."""
    return f"{mix_seed(json.dumps(setting, sort_keys=True)):016x}-seed{seed}"
