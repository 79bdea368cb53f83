"""What a search varies: the keys of a search file, and the space of a plain recipe, which names none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pydantic

from plankwise.core.errors import PlankwiseError, RecipeError, suggest
from plankwise.core.recipe import Name, RecipeFile, settings, to_plain, validate
from plankwise.deploy.export.export import PACKAGES, PRECISIONS, missing_packages
from plankwise.deploy.manifest import RUNTIMES
from plankwise.run.pipeline import Checked, check
from plankwise.run.recipe import Recipe
from plankwise.search.budget.candidate import NOTHING_INSTALLED, Deployment, installed_deployments
from plankwise.search.study import Fixed, Space

logger = logging.getLogger(__name__)
TARGETS = {"low": 1.25, "high": 4.0, "log": True}
DEPTHS = (1 / 3, 1 / 2, 2 / 3)  # shares of the layers


@settings
class SearchFile:
    """A search over a recipe's steps: a study's file without its seeds and its sampler.

    Attributes:
        name: of the search in its storage; that of the recipe by default.
        recipe: the run to vary: a recipe's file, relative to this one, or the recipe itself.
        fixed: overrides of that recipe for every trial, by key path.
        space: what may vary in the steps: a list of values or a range for each key path, such as `steps.0.target`. By
            default what a recipe that is given alone lets vary.
        drop: steps that may be left out, such as `steps.1`; by default none, or all where `space` is not given.
        runtimes: where a model may run and in which precision, such as `openvino int8`; by default int8 and fp32 in
            every runtime that is installed.
    """

    name: Name | None = None
    recipe: Path | dict[str, Any]
    fixed: Fixed = pydantic.Field(default_factory=dict)
    space: Space | None = None
    drop: list[str] | None = None
    runtimes: list[str] | None = None


def default_space(checked: Checked) -> dict[str, Any]:
    """Return what may vary in a recipe that does not say so: targets, modules, and the layers of students.

    Values that the model or another step rules out are left out; the recipe's own are always in.

    Args:
        checked: the recipe with its model.
    """
    space: dict[str, Any] = {}
    for number, step in enumerate(to_plain(checked.recipe)["steps"]):
        layers = int(checked.specs[number].config.num_hidden_layers)
        if "target" in step:
            space[f"steps.{number}.target"] = _around(float(step["target"]))
        if "modules" in step:
            space[f"steps.{number}.modules"] = _depths(checked, number, ("modules",), layers)
        if (step.get("student") or {}).get("layers") is not None:
            space[f"steps.{number}.student.layers"] = _depths(checked, number, ("student", "layers"), layers)
    return space


def _around(own: float) -> dict[str, Any]:
    """Return the usual targets, widened to the recipe's own."""
    return {**TARGETS, "low": min(TARGETS["low"], own), "high": max(TARGETS["high"], own)}


def _depths(checked: Checked, number: int, place: tuple[str, ...], layers: int) -> list[int]:
    plain = to_plain(checked.recipe)
    holder = plain["steps"][number]
    for part in place[:-1]:
        holder = holder[part]
    own = int(holder[place[-1]])
    possible = []
    for value in sorted({own, *(max(1, round(share * layers)) for share in DEPTHS)}):
        holder[place[-1]] = value
        if value == own or (value < layers and _works(plain, checked)):
            possible.append(value)
    return possible


def _works(plain: dict[str, Any], checked: Checked) -> bool:
    try:
        check(validate(plain, Recipe), checked.task)
    except PlankwiseError as error:
        logger.debug("left out of the default space: %s", error)
        return False
    return True


def steps_to_drop(given: list[str] | None, count: int, file: RecipeFile) -> tuple[int, ...]:
    """Return the numbers of the steps that may be left out.

    Raises:
        RecipeError: with file and line, if one of them is not a step.
    """
    names = [f"steps.{number}" for number in range(count)]
    for at, name in enumerate(given or ()):
        if name not in names:
            raise RecipeError(f"{file.where(('drop', at))}: no step '{name}' to leave out; {suggest(name, names)}")
    return tuple(number for number, name in enumerate(names) if name in (given or ()))


def runtimes_of(given: list[str] | None, file: RecipeFile) -> tuple[Deployment, ...]:
    """Return the runtimes and precisions that a model may run in.

    Raises:
        RecipeError: with file and line, if one is unknown or not installed, or none is installed.
    """
    if given is None:
        found = installed_deployments()
        if not found:
            raise RecipeError(NOTHING_INSTALLED)
        return found
    if not given:
        raise RecipeError(f"{file.where(('runtimes',))}: the list is empty; give at least one, such as openvino int8")
    return tuple(_pair(each, file.where(("runtimes", at))) for at, each in enumerate(dict.fromkeys(given)))


def _pair(text: str, where: str) -> Deployment:
    known = [f"{runtime} {precision}" for runtime in RUNTIMES for precision in PRECISIONS[runtime]]
    for runtime in RUNTIMES:
        for precision in PRECISIONS[runtime]:
            if text.split() == [runtime, precision]:
                if missing_packages(runtime):
                    packages = " ".join(PACKAGES[runtime])
                    raise RecipeError(f"{where}: {runtime} is not installed here; pip install {packages}")
                return runtime, precision
    raise RecipeError(f"{where}: no runtime and precision '{text}'; {suggest(text, known)}")
