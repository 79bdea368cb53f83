"""A study's plan: the recipe that is varied and every setting to try, checked before anything is trained."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plankwise.core.errors import MethodError, ModelError, RecipeError
from plankwise.core.recipe import RecipeFile, open_recipe, override, parse_override, to_plain, validate
from plankwise.core.recipe_errors import Location, dotted
from plankwise.core.seeds import mix_seed
from plankwise.data.task import Task
from plankwise.evaluation.effects import short_names
from plankwise.run.pipeline import Checked, check
from plankwise.run.recipe import Recipe
from plankwise.search.study import Range, Study, probes

NOT_DEFINING = ("storage", "keep_models", "minutes", "noise", "recipe")  # a study may be resumed with others
Setting = dict[str, Any]  # a value for each key path of the space


@dataclass(frozen=True)
class StudyPlan:
    """A study that has been checked.

    Attributes:
        study: its settings, with every value of the space as the recipe reads it.
        file: the study's YAML file.
        base: the recipe that is varied, as plain values.
        grid: the settings of a grid in the order in which they are tried; empty for a sampler.
        task: without its test split, which no trial ever holds.
    """

    study: Study
    file: RecipeFile
    base: dict[str, Any]
    grid: tuple[Setting, ...]
    task: Task

    @property
    def keys(self) -> list[str]:
        """Key paths of the parameters that are varied."""
        return list(self.study.space[0])

    @property
    def settings_count(self) -> int:
        """Number of settings to try, each with every seed."""
        return len(self.grid) or int(self.study.trials or 0)

    def recipe(self, setting: Setting, seed: int) -> Recipe:
        """Return the recipe of one trial."""
        return _recipe(self.file, self.base, setting, seed)

    def checked(self, setting: Setting, seed: int) -> Checked:
        """Check the recipe of one trial against its model and the task."""
        return check(self.recipe(setting, seed), self.task)

    def definition(self) -> dict[str, Any]:
        """Return what makes this study different from another, as plain values; where it is stored does not."""
        plain = to_plain(self.study)
        kept = {key: value for key, value in plain.items() if key not in NOT_DEFINING}
        return {**kept, "recipe": self.base, "data_hashes": dict(self.task.hashes)}


def read_study(path: Path, overrides: Sequence[str] = ()) -> StudyPlan:
    """Read a study, load its task once, and check every setting before anything is trained.

    Args:
        path: of the study's file.
        overrides: of the recipe that is varied, such as `model.source=FOLDER`; they take precedence over `fixed`.

    Raises:
        RecipeError: with file and line, if a key path or value is wrong.
    """
    file = open_recipe(path)
    return plan_study(validate(file.data, Study, file.where), file, overrides)


def plan_study(study: Study, file: RecipeFile, overrides: Sequence[str] = (), task: Task | None = None) -> StudyPlan:
    """Load a study's task once, and check every setting before anything is trained.

    Args:
        study: its settings.
        file: that they were read from; `recipe`, `space` and `fixed` are looked for there.
        overrides: as in `read_study`.
        task: of the recipe, where it is loaded already.

    Raises:
        RecipeError: with file and line, if a key path or value is wrong.
    """
    if overrides:
        fixed = {**study.fixed, **dict(parse_override(each) for each in overrides)}
        study = validate({**to_plain(study), "fixed": fixed}, Study, lambda place: "--set")
    base = _base(study, file)
    first = {key: probes(values)[0] for key, values in study.space[0].items()}
    recipe = _recipe(file, base, first, study.seeds[0])
    if not recipe.steps:
        raise RecipeError(f"{file.where(('recipe',))}: compressed models are compared, but its recipe has no steps")
    spaces = [_typed(file, base, space, number, study.seeds[0]) for number, space in enumerate(study.space)]
    study = dataclasses.replace(study, space=spaces)
    plan = StudyPlan(study, file, base, _grid(study), (task or recipe.task.load()).without_test())
    _check_settings(plan)
    return plan


def _base(study: Study, file: RecipeFile) -> dict[str, Any]:
    """Read the recipe that the study varies, and apply what is fixed."""
    origin = open_recipe(file.path.parent / study.recipe) if isinstance(study.recipe, Path) else None
    # Overrides change the data in place; the study's own recipe stays as it is in the file.
    base = copy.deepcopy(study.recipe if origin is None else origin.data)
    assert isinstance(base, dict)
    for key, value in study.fixed.items():
        override(base, key, value, partial(_where_fixed, file, key))

    def where(place: Location) -> str:
        key = _nearest(place, study.fixed)
        if key is not None:
            return file.where(("fixed", key))
        return file.where(("recipe", *place)) if origin is None else origin.where(place)

    validate({**base, "seed": study.seeds[0]}, Recipe, where)
    return base


def _where_fixed(file: RecipeFile, key: str) -> str:
    return f"{file.where(('fixed', key))}: {key}"


def _recipe(file: RecipeFile, base: dict[str, Any], setting: Setting, seed: int, number: int = 0) -> Recipe:
    """Return the recipe of a setting; errors point into the grid of that number in the study's space."""
    data = {**copy.deepcopy(base), "seed": seed}
    spaces = ("space", number) if isinstance(file.data["space"], list) else ("space",)
    for key, value in setting.items():
        override(data, key, copy.deepcopy(value), partial(_where_varied, file, (*spaces, key), key))

    def where(place: Location) -> str:
        key = _nearest(place, setting)
        return file.where(("space",) if key is None else (*spaces, key))

    return validate(data, Recipe, where)


def _where_varied(file: RecipeFile, place: Location, key: str) -> str:
    return f"{file.where(place)}: {key}"


def _nearest(place: Location, keys: dict[str, Any]) -> str | None:
    """Return the key path that sets a place in the recipe, or else one that sets something inside it."""
    path = dotted(place)
    around = (key for key in keys if f"{path}.".startswith(f"{key}."))
    inside = (key for key in keys if path and key.startswith(f"{path}."))
    return next(itertools.chain(around, inside), None)


def _typed(file: RecipeFile, base: dict[str, Any], space: dict[str, Any], number: int, seed: int) -> dict[str, Any]:
    """Check each value alone and return it as the recipe reads it: YAML takes 1e-4 for text, a recipe for a number."""
    first = {key: probes(values)[0] for key, values in space.items()}
    typed: dict[str, Any] = {}
    for key, values in space.items():
        read = []
        for value in probes(values):
            found = to_plain(_recipe(file, base, {**first, key: value}, seed, number))
            for part in key.split("."):
                found = found[int(part)] if isinstance(found, list) else found.get(part, value)  # a renamed key is gone
            read.append(found)
        typed[key] = values if isinstance(values, Range) else read
    return typed


def _grid(study: Study) -> tuple[Setting, ...]:
    """List the settings, each once, in a seeded random order, so that a study that is cut short is balanced."""
    if study.sampler != "grid":
        return ()
    products = [
        dict(zip(space, each, strict=True)) for space in study.space for each in itertools.product(*space.values())
    ]
    # The grids of a union may overlap, and values may be lists, which no set holds: compare them as JSON.
    distinct = list({json.dumps(setting, sort_keys=True): setting for setting in products}.values())
    random.Random(mix_seed(study.name, "grid")).shuffle(distinct)
    return tuple(distinct[: study.trials])


def _check_settings(plan: StudyPlan) -> None:
    """Check every setting of a grid against the model; for a sampler each value alone, and both ends of each range.

    One seed is enough: seeds change neither shapes nor data.
    """
    first = {key: probes(values)[0] for key, values in plan.study.space[0].items()}
    alone = [{**first, key: value} for key, values in plan.study.space[0].items() for value in probes(values)]
    for setting in plan.grid or alone:
        try:
            plan.checked(setting, plan.study.seeds[0])
        except (MethodError, ModelError) as error:
            where = plan.file.where(("space",))
            raise type(error)(f"{where}: with {format_setting(setting)}: {error}") from None


def format_setting(setting: Setting) -> str:
    """Format a setting on one line, with keys as short as possible."""
    short = short_names(list(setting))
    return ", ".join(f"{short[key]}={value}" for key, value in setting.items())


def trial_name(setting: Setting, seed: int) -> str:
    """Return the name of a trial's folder; the same setting and seed have the same name."""
    return f"{mix_seed(json.dumps(setting, sort_keys=True)):016x}-seed{seed}"
