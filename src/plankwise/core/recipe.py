"""Recipes: YAML in, checked settings out. Errors name the file, the line, the bad value and what is allowed.

A settings class is a frozen, keyword-only dataclass that checks its fields; `settings` makes one. This module knows no
particular setting: each floor declares its own, and `run/recipe.py` puts them together into the whole recipe.

A *place* is a path through the data, such as `("steps", 0, "modules")`. Places become `file:line` only once there is an
error: a study validates hundreds of recipes, and nearly all of them are right.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

import pydantic
import yaml
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import core_schema
from typing_extensions import dataclass_transform

from plankwise.core.documents import parse_yaml, read_yaml
from plankwise.core.errors import RecipeError
from plankwise.core.numbers import refuse_booleans
from plankwise.core.recipe_errors import Location, dotted, explain, holds

logger = logging.getLogger(__name__)
T = TypeVar("T")
Name = Annotated[str, pydantic.Field(pattern=r"^[\w.+-]+$", max_length=100)]  # of runs and files
_STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
_ADAPTERS: dict[Any, pydantic.TypeAdapter[Any]] = {}


@overload
def settings(cls: type[T], /) -> type[T]: ...
@overload
def settings(*, renamed: Mapping[str, str]) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, kw_only_default=True)
def settings(cls: type[T] | None = None, /, *, renamed: Mapping[str, str] | None = None) -> Any:
    """Turn a class into frozen, keyword-only settings whose fields are checked and whose unknown keys are refused.

    Args:
        cls: the class to decorate.
        renamed: field names by the keys that older recipes use for them. Such a key is read with a warning and never
            written.

    Example:
        >>> @settings(renamed={"fast_start": "ppmi_init"})
        ... class PretrainingConfig:
        ...     ppmi_init: bool = True
    """
    return partial(_checked, renamed=renamed or {}) if cls is None else _checked(cls, {})


def _checked(cls: type[Any], renamed: Mapping[str, str]) -> Any:
    for old, new in renamed.items():
        # An alias, not a rewritten mapping: an error then names the key that the file has, and its line is found.
        aliases = pydantic.AliasChoices(new, old)
        setattr(cls, new, pydantic.Field(default=getattr(cls, new), validation_alias=aliases))
    setattr(cls, "__get_pydantic_core_schema__", classmethod(partial(_checks, renamed)))  # noqa: B010 - no attribute
    return checked_dataclass(frozen=True, kw_only=True, config=_STRICT)(cls)


def _checks(renamed: Mapping[str, str], cls: type[Any], source: Any, handler: Callable[[Any], Any]) -> Any:
    schema = refuse_booleans(handler(source))
    return _warning_of_old_keys(renamed, schema) if renamed else schema


def _warning_of_old_keys(renamed: Mapping[str, str], schema: Any) -> Any:
    def warn(data: Any) -> Any:
        given = getattr(data, "kwargs", data)  # pydantic passes the keywords of a call as `ArgsKwargs`
        for old, new in renamed.items():
            if isinstance(given, Mapping) and old in given:
                _warn_renamed(old, new)
        return data

    return core_schema.no_info_before_validator_function(warn, schema)


@functools.cache  # once a process: a study checks the same recipe hundreds of times
def _warn_renamed(old: str, new: str) -> None:
    logger.warning("the key '%s' is now called '%s'; the old name still works", old, new)


@dataclass(frozen=True)
class RecipeFile:
    """A YAML file that has been parsed once: its values, and the line of each.

    Attributes:
        path: of the file.
        node: the parsed document, whose nodes know their lines.
        data: its values.
    """

    path: Path
    node: yaml.Node | None
    data: dict[str, Any]

    def where(self, place: Location) -> str:
        """Return the `file:line` of a place, or of the nearest place around it that is in the file."""
        return f"{self.path}:{self.line(place)[0]}"

    def line(self, place: Location) -> tuple[int, Location]:
        """Return the line of a place, and the rest of it that is not in the file."""
        line, node = 1, self.node
        for depth, part in enumerate(place):
            found = _child(node, part)
            if found is None:
                return line, place[depth:]
            mark, node = found
            line = mark.start_mark.line + 1
        return line, ()


def open_recipe(path: Path) -> RecipeFile:
    """Parse a YAML file whose document is a mapping.

    Raises:
        RecipeError: with file and line, if the file is missing, is not YAML, or holds something else.
    """
    node, data = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys, not {type(data).__name__}")
    return RecipeFile(path, node, data)


def read_recipe(path: Path, schema: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into `schema`, after applying overrides such as `steps.0.modules=4`.

    Raises:
        RecipeError: with file and line, if the file is missing, is not YAML, or does not fit the schema.
    """
    file = open_recipe(path)
    overridden: list[Location] = []
    for text in overrides:
        key, value = parse_override(text)
        overridden.append(override(file.data, key, value, partial("--set {}".format, text)))

    def where(place: Location) -> str:
        """Prefer the override that set this place, or one around it, to the file."""
        for each in reversed(overridden):
            if place and place[: len(each)] == each:
                return f"--set {dotted(each)}"
        missing = file.line(place)[1]
        if missing:  # an override below this place created it
            reached = place[: len(place) - len(missing) + 1]
            made = next((each for each in reversed(overridden) if each[: len(reached)] == reached), None)
            if made is not None:
                return f"--set {dotted(made)}"
        return file.where(place)

    return validate(file.data, schema, where)


def validate(data: Any, schema: type[T], where: Callable[[Location], str] = lambda place: "settings") -> T:
    """Check data against a schema and return the settings.

    Args:
        data: plain values, as YAML or JSON hold them.
        schema: a settings class, or any type that pydantic knows.
        where: returns what an error at a place begins with; called for an error alone.

    Raises:
        RecipeError: on the first error, with the number of the others.
    """
    adapter = _adapter(schema)
    try:
        made: T = adapter.validate_python(data)
        return made
    except pydantic.ValidationError as error:
        place, message = explain(error, data, adapter.json_schema(mode="validation"))
        raise RecipeError(f"{where(place)}: {message}") from None


def to_plain(value: Any) -> Any:
    """Return settings as plain JSON values, defaults included; `validate` reads them back."""
    return _adapter(type(value)).dump_python(value, mode="json")


def override(data: Any, key: str, value: Any, where: Callable[[], str]) -> Location:
    """Set the key path `key`, such as `steps.0.modules`, in `data` in place and return it as a place.

    Raises:
        RecipeError: beginning with `where()`, if the path leads through something that does not exist.
    """
    place: Location = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    for part in place[:-1]:
        if isinstance(data, dict):
            data = data.setdefault(part, {})
        elif holds(data, part):
            data = data[part]
        else:
            raise RecipeError(f"{where()}: there is no '{part}' in the recipe")
    last = place[-1]
    if not isinstance(data, dict) and not holds(data, last):
        raise RecipeError(f"{where()}: there is no '{last}' in the recipe")
    data[last] = value
    return place


def parse_override(text: str) -> tuple[str, Any]:
    """Split `key.path=value` and read the value as YAML.

    Raises:
        RecipeError: if it does not have that form.
    """
    key, equals, raw = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {text}: write key=value, such as --set steps.0.modules=4")
    return key, parse_yaml(raw, f"--set {text if len(text) < 80 else text[:80] + '…'}", lines=False)[1]


def _adapter(schema: Any) -> pydantic.TypeAdapter[Any]:
    """Build the validator of a schema once; building one takes longer than using it a hundred times."""
    if schema not in _ADAPTERS:
        _ADAPTERS[schema] = pydantic.TypeAdapter(schema)
    return _ADAPTERS[schema]


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the node that marks the line of a child (its key, in a mapping) and the child itself."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
