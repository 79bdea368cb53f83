"""The settings of a study: the keys of its YAML file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from plankwise.core.numbers import Bounds, Count, Seed
from plankwise.core.recipe import Name, settings

SeedList = Annotated[list[Seed], pydantic.Field(min_length=1, max_length=1000)]
Bound = Annotated[int | float, Bounds(-1e12, 1e12, "no setting is so large")]


@settings
class Range:
    """An interval for a sampler to draw from; it draws integers if both ends are integers.

    Attributes:
        low: the smallest value.
        high: the largest value.
        log: whether to draw uniformly on a logarithmic scale.
    """

    low: Bound
    high: Bound
    log: bool = False

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, not at {self.low}")
        return self


def _values(given: Any) -> list[Any] | Range:
    if isinstance(given, Range):
        return given
    if isinstance(given, dict):
        return pydantic.TypeAdapter(Range).validate_python(given)
    if not isinstance(given, list):
        raise ValueError("give a list of values, or {low, high, log} for a sampler")
    if not given:
        raise ValueError("the list is empty; give at least one value")
    texts = [json.dumps(each) for each in given]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise ValueError(f"the value {twice} appears twice")
    return given


def _not(*reserved: str) -> pydantic.AfterValidator:
    def check_key(key: str) -> str:
        if key.split(".")[0] in reserved:
            raise ValueError(
                f"a study does not vary {key}: {', '.join(reserved)} are the same for all trials or listed"
            )
        return key

    return pydantic.AfterValidator(check_key)


Space = dict[Annotated[str, _not("seed", "name", "task")], Annotated[Any, pydantic.BeforeValidator(_values)]]
Fixed = dict[Annotated[str, _not("seed", "name")], Any]


@settings
class Study:
    """A hyperparameter study.

    Attributes:
        name: of the study in its storage and in reports.
        recipe: the run to vary: a recipe's file, relative to this one, or the recipe itself.
        fixed: overrides of that recipe for every trial, by key path.
        space: the values to try for each key path: a list, or for samplers also a range. A list of such mappings is the
            union of their grids.
        seeds: every setting is run with each; a trial is one setting with one seed.
        sampler: `grid` tries every combination, `random` and `tpe` are Optuna's.
        trials: number of settings that a sampler draws; for a grid, how many of its settings to try, chosen at random
            (default: all).
        storage: a URL of SQLAlchemy; by default SQLite in the study's folder.
        keep_models: keep the models of trials, not only their records.
        minutes: that all workers may spend together. No trial is begun that would not fit; the study is refused where
            not even two trials of each setting fit.
        noise: standard deviation of the score among trials of a setting, as a smaller study found it, to estimate
            beforehand what this one can decide.
    """

    name: Name
    recipe: Path | dict[str, Any]
    fixed: Fixed = pydantic.Field(default_factory=dict)
    space: Annotated[
        list[Annotated[Space, pydantic.Field(min_length=1)]],
        pydantic.Field(min_length=1),
        pydantic.BeforeValidator(lambda given: [given] if isinstance(given, dict) else given),
    ]
    seeds: SeedList = pydantic.Field(default_factory=lambda: [0, 1, 2])
    sampler: Literal["grid", "random", "tpe"] = "grid"
    trials: Count | None = None
    storage: str | None = None
    keep_models: bool = False
    minutes: Annotated[float, Bounds(0, 1_000_000, "that is two years", above=True)] | None = None
    noise: Annotated[float, Bounds(0, 1, "scores are at most 1", above=True)] | None = None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Study:
        keys = list(self.space[0])
        if any(set(grid) != set(keys) for grid in self.space):
            raise ValueError("every grid of a space names the same keys")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed appears twice")
        for one, other in itertools.permutations([*keys, *self.fixed], 2):
            if one == other or other.startswith(f"{one}."):
                raise ValueError(f"{one} and {other} would override each other")
        if self.sampler == "grid":
            ranges = [key for grid in self.space for key, values in grid.items() if isinstance(values, Range)]
            if ranges:
                raise ValueError(f"a grid needs a list of values for {ranges[0]}; ranges are for random and tpe")
        elif len(self.space) > 1 or self.trials is None:
            raise ValueError(f"the sampler {self.sampler} needs a single space and the number of trials")
        return self


def probes(values: list[Any] | Range) -> list[Any]:
    """Return the values to check a parameter with: all of a list, both ends of a range."""
    return [values.low, values.high] if isinstance(values, Range) else values
