"""A search's plan: the recipe, what may vary in it, and the candidate that a setting stands for."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from plankwise.core.errors import RecipeError
from plankwise.core.recipe import RecipeFile, open_recipe, read_recipe, to_plain, validate
from plankwise.data.task import Task
from plankwise.deploy.manifest import RuntimeName
from plankwise.run.pipeline import check
from plankwise.run.recipe import Recipe
from plankwise.search.budget.candidate import Candidate, Deployment
from plankwise.search.pareto.definition import SearchFile, default_space, runtimes_of, steps_to_drop
from plankwise.search.pareto.fidelity import FULL, PROXY, shortened
from plankwise.search.storage import decoded, distributions
from plankwise.search.study import Study
from plankwise.search.study_plan import StudyPlan, format_setting, plan_study

RUNTIME, USE = "runtime", "use "  # parameters that are no keys of a recipe: `use steps.1` says whether it is a step
MAX_LISTED = 20_000  # settings of a finite space that are listed
Parameters = dict[str, Any]  # as Optuna stores them


@dataclass(frozen=True)
class SearchPlan:
    """A search that has been checked.

    Attributes:
        study: the recipe, its space, and the task without its test split.
        drops: numbers of the steps that may be left out.
        pairs: runtimes and precisions that a model may run in.
    """

    study: StudyPlan
    drops: tuple[int, ...]
    pairs: tuple[Deployment, ...]

    @property
    def name(self) -> str:
        """Name of the search in its storage."""
        return self.study.study.name

    @property
    def seed(self) -> int:
        """Seed of the recipe, and of the sampler."""
        return self.study.study.seeds[0]

    @property
    def recipe(self) -> Recipe:
        """The recipe with its first values."""
        return self.study.recipe({}, self.seed)

    @property
    def task(self) -> Task:
        """The task, without its test split."""
        return self.study.task

    @property
    def has_proxies(self) -> bool:
        """Whether trainings can be cut short at all, so that a second rung trains in full what survives."""
        steps = tuple(to_plain(self.recipe)["steps"])
        return shortened(steps) != steps

    def draw(self, trial: Trial) -> Parameters:
        """Let Optuna choose: first the steps, then what varies in those that are there, then the runtime."""
        kept = {number: trial.suggest_categorical(f"{USE}steps.{number}", [True, False]) for number in self.drops}
        for key, distribution in self._distributions.items():
            if kept.get(_step_of(key), True):
                _suggest(trial, key, distribution)
        trial.suggest_categorical(RUNTIME, [" ".join(pair) for pair in self.pairs])
        return dict(trial.params)

    def candidate(self, parameters: Parameters, *, proxy: bool) -> Candidate:
        """Return the candidate of a setting.

        Args:
            parameters: as `draw` returned them.
            proxy: whether its trainings are cut short. A candidate without trainings is whole in any case.
        """
        runtime, precision = str(parameters[RUNTIME]).split()
        varied = {key: value for key, value in parameters.items() if key in self.study.keys}
        dropped = {number for number in self.drops if not parameters[f"{USE}steps.{number}"]}
        setting = {key: decoded(self.study, key, value) for key, value in varied.items()}
        plain = to_plain(self.study.recipe(setting, self.seed))["steps"]
        whole = tuple(step for number, step in enumerate(plain) if number not in dropped)
        steps = shortened(whole) if proxy else whole
        words = [format_setting({key: _rounded(value) for key, value in setting.items()})] if setting else []
        words += [f"without steps.{number}" for number in sorted(dropped)]
        return Candidate(
            name=", ".join([*words, f"{runtime} {precision}"]),
            rung=FULL if steps == whole else PROXY,
            steps=steps,
            runtime=cast(RuntimeName, runtime),
            precision=precision,
        )

    def settings(self) -> list[Parameters] | None:
        """List all settings of a finite space; None if it is infinite or too large."""
        if any(isinstance(each, FloatDistribution) for each in self._distributions.values()):
            return None
        found = list(itertools.islice(self._all(), MAX_LISTED + 1))
        return found if len(found) <= MAX_LISTED else None

    def at_random(self, seed: int) -> Parameters:
        """Return a setting that is drawn uniformly."""
        draw = random.Random(seed)
        chosen: Parameters = {f"{USE}steps.{number}": draw.random() < 0.5 for number in self.drops}
        for key, distribution in self._distributions.items():
            if chosen.get(f"{USE}steps.{_step_of(key)}", True):
                chosen[key] = _drawn(draw, distribution)
        return {**chosen, RUNTIME: " ".join(draw.choice(self.pairs))}

    def definition(self) -> dict[str, Any]:
        """Return what makes this search different from others, as plain values."""
        plain = {key: value for key, value in self.study.definition().items() if key not in ("sampler", "trials")}
        found = {**plain, "drop": list(self.drops), "runtimes": [" ".join(pair) for pair in self.pairs]}
        return cast(dict[str, Any], json.loads(json.dumps(found)))

    @property
    def _distributions(self) -> dict[str, BaseDistribution]:
        found = distributions(self.study)
        return {key: found[key] for key in self.study.keys}

    def _all(self) -> Iterator[Parameters]:
        for uses in itertools.product([True, False], repeat=len(self.drops)):
            kept = dict(zip(self.drops, uses, strict=True))
            active = {key: each for key, each in self._distributions.items() if kept.get(_step_of(key), True)}
            for values in itertools.product(*map(_values, active.values())):
                for pair in self.pairs:
                    chosen = {f"{USE}steps.{number}": use for number, use in kept.items()}
                    yield {**chosen, **dict(zip(active, values, strict=True)), RUNTIME: " ".join(pair)}


def read_search(path: Path, overrides: Sequence[str] = (), seed: int | None = None) -> SearchPlan:
    """Read a search file or a plain recipe, load its task once, and check every value before anything is trained.

    Args:
        path: of a YAML file: with a key `recipe` a search file, else a recipe.
        overrides: of the recipe that is varied, such as `model.source=FOLDER`.
        seed: of the recipe and of the sampler; that of the recipe by default.

    Raises:
        PlankwiseError: with file and line, if a key path or value is wrong.
    """
    file = open_recipe(path)
    if "recipe" not in file.data:
        file = RecipeFile(path, None, {"recipe": path.name})
    given = validate(file.data, SearchFile, file.where)
    origin = given.recipe if isinstance(given.recipe, dict) else open_recipe(path.parent / given.recipe).data
    task, space, drop = None, given.space, given.drop
    if space is None:
        checked = check(_plain_recipe(path, given, overrides))
        task, space = checked.task, default_space(checked)
        drop = [f"steps.{number}" for number in range(len(checked.recipe.steps))] if drop is None else drop
        if not space:
            raise RecipeError(f"{path}: nothing varies by default in these steps; give a search file with a space")
        file = RecipeFile(file.path, file.node, {**file.data, "space": space})
    for key in space:
        if not key.startswith("steps."):
            raise RecipeError(f"{file.where(('space', key))}: a search varies steps, such as steps.0.target, not {key}")
    plain = {
        "name": given.name or str(origin.get("name", path.stem)),
        "recipe": given.recipe,
        "fixed": given.fixed,
        "space": space,
        "seeds": [origin.get("seed", 0) if seed is None else seed],
        "sampler": "tpe",
        "trials": 1,
    }
    study = plan_study(validate(plain, Study, file.where), file, overrides, task)
    pairs = runtimes_of(given.runtimes, file)
    return SearchPlan(study, steps_to_drop(drop, len(study.base["steps"]), file), pairs)


def _plain_recipe(path: Path, given: SearchFile, overrides: Sequence[str]) -> Recipe:
    """Return the recipe as it would run alone."""
    fixed = [f"{key}={json.dumps(value)}" for key, value in given.fixed.items()]
    if isinstance(given.recipe, dict):
        raise RecipeError(f"{path}: give a space; a recipe inside a search file has none by default")
    return read_recipe(path.parent / given.recipe, Recipe, [*fixed, *overrides])


def _step_of(key: str) -> int:
    return int(key.split(".")[1])


def _suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    if isinstance(distribution, FloatDistribution):
        trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(key, distribution.low, distribution.high, log=distribution.log)
    elif isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1)
    assert isinstance(distribution, CategoricalDistribution)
    return distribution.choices


def _drawn(draw: random.Random, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        if distribution.log:
            return math.exp(draw.uniform(math.log(distribution.low), math.log(distribution.high)))
        return draw.uniform(distribution.low, distribution.high)
    return draw.choice(_values(distribution))


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
