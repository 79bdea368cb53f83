"""Numbers of settings: true is none, every one has bounds, and what people write is read as they meant it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

from plankwise.core.errors import RecipeError
from plankwise.core.recipe import read_recipe, validate
from plankwise.data.truncation import Truncation
from plankwise.run.domain.settings import Domain
from plankwise.run.recipe import Recipe
from plankwise.search.study import Range, Study
from plankwise.training.fit import Training

RECIPE = "name: x\ntask: {name: table, train: a.csv}\nmodel: {source: m}\nsteps: [{method: theseus}]\n"


def numbers_of(schema: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """List all that a JSON schema says of numbers."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number"):
            yield place, schema
        for key, value in schema.items():
            yield from numbers_of(value, f"{place}.{key}")
    elif isinstance(schema, list):
        for number, each in enumerate(schema):
            yield from numbers_of(each, f"{place}.{number}")


@pytest.mark.parametrize("kind", [Recipe, Study, Domain])
def test_every_number_of_every_settings_class_has_bounds(kind: Any) -> None:
    found = list(numbers_of(pydantic.TypeAdapter(kind).json_schema()))
    low, high = ({"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"})
    unions = [place for place, each in found if not (low & each.keys() and high & each.keys())]
    assert len(found) >= 2
    assert unions == []


def refusal(path: Path, override: str, text: str = RECIPE) -> str:
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, Recipe, [override] if override else [])
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "true"),
        ("baseline.epochs", "false"),
        ("baseline.warmup", "True"),
        ("task.split_seed", "true"),
        ("model.windows", "{stride: true}"),
        ("evaluation.threads", "true"),
        ("steps.0.modules", "true"),
        ("steps.0.modules", "[[0, true]]"),
        ("steps.0.initialization", "[false]"),
        ("steps.0.teacher", "{layer_map: [[0, true]]}"),
        ("steps", "[{method: pruning, latency_shape: [true, 8]}]"),
        ("model", "{scratch: {growth: [true], layers: 1, epochs: [1]}}"),
    ],
)
def test_true_and_false_are_no_numbers(tmp_path: Path, key: str, value: str) -> None:
    assert "a number is needed, not " in refusal(tmp_path / "r.yaml", f"{key}={value}")
    first, _, rest = key.partition(".")
    if not rest:
        text = "".join(line for line in RECIPE.splitlines(True) if not line.startswith(f"{key}:"))
        assert "a number is needed, not " in refusal(tmp_path / "r.yaml", "", f"{text}{first}: {value}\n")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("baseline.epochs", "1e12", r"less than or equal to 10,000: such a training would not end, not '1e12'"),
        ("baseline.batch_size", "1" + "0" * 30, r"less than or equal to 1,000,000: no memory holds such a batch"),
        ("baseline.learning_rate", "1.0e30", r"less than or equal to 1: a single step would overwrite"),
        ("baseline.learning_rate", "0", r"greater than or equal to 1e-12, not 0"),
        ("seed", "1" + "0" * 40, r"less than or equal to 2,147,483,647: generators"),
        ("seed", "9" * 5000, r"^--set seed=9{75}….* not valid YAML"),
        ("task.split_seed", "-1", "greater than or equal to 0, not -1"),
        ("model.max_length", "2000000", "no encoder reads so many tokens"),
        ("evaluation.bootstrap", "1000000000", "more resamples tell nothing new"),
        ("steps.0.modules", "[[0, -1]]", r"modules.0.1: .*greater than or equal to 0, not -1"),
        ("name", "n" * 300, "at most 100 characters"),
        ("seed", "1:30", "valid integer"),
    ],
)
def test_numbers_out_of_bounds_are_refused_with_a_reason(tmp_path: Path, key: str, value: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_or_raise(tmp_path / "r.yaml", f"{key}={value}")


def read_or_raise(path: Path, override: str) -> Recipe:
    path.write_text(RECIPE)
    return read_recipe(path, Recipe, [override])


@pytest.mark.parametrize(
    ("written", "size"), [("3", 3), ("'3'", 3), ("3.0", 3), ("1_000", 1000), ("010", 10), ("0x10", 16)]
)
def test_numbers_are_read_as_they_were_meant(tmp_path: Path, written: str, size: int) -> None:
    assert read_or_raise(tmp_path / "r.yaml", f"baseline.batch_size={written}").baseline == Training(batch_size=size)


def test_studies_and_domains_know_no_true_number_either() -> None:
    study = {"name": "s", "recipe": {}, "space": {"a": [1]}}
    for key in ("seeds", "trials"):
        with pytest.raises(RecipeError, match="a number is needed, not true"):
            validate({**study, key: [True] if key == "seeds" else True}, Study)
    for values in ({"low": True, "high": 2}, {"low": 0, "high": True}):
        with pytest.raises(RecipeError, match="space"):
            validate({**study, "space": {"a": values}}, Study)
    with pytest.raises(RecipeError, match="no setting is so large"):
        validate({"low": 1, "high": 10**30}, Range)
    task = {"name": "t", "task": {"name": "table", "train": "a.csv"}}
    with pytest.raises(RecipeError, match=r"seeds\.0: a number is needed, not true"):
        validate({"name": "d", "language_model": "lm.yaml", "tasks": [task], "seeds": [True]}, Domain)


def test_settings_made_in_python_are_checked_alike() -> None:
    with pytest.raises(pydantic.ValidationError, match="a number is needed"):
        Training(epochs=True)
    with pytest.raises(pydantic.ValidationError, match="no encoder reads"):
        Truncation(max_length=10**9)
