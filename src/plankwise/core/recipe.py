"""Recipes: YAML in, checked settings out. Errors name the file, the line, the bad value and what is allowed.

A settings class is a frozen, keyword-only dataclass that checks its fields; `settings` makes one. This module knows no
particular setting: each floor declares its own, and `study/plan.py` puts them together into the whole recipe.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

import pydantic
import yaml
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import core_schema
from typing_extensions import dataclass_transform

from plankwise.core.documents import parse_yaml, read_yaml
from plankwise.core.errors import RecipeError, suggest
from plankwise.core.numbers import refuse_booleans

logger = logging.getLogger(__name__)
T = TypeVar("T")
Location = tuple[int | str, ...]
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


def read_recipe(path: Path, schema: type[T], overrides: Sequence[str] = ()) -> T:
    """Read the YAML file `path` into `schema`, after applying overrides such as `steps.0.modules=4`.

    Raises:
        RecipeError: with file and line, if the file is missing, no YAML, or does not fit the schema.
    """
    node, data = read_yaml(path)
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys, not {type(data).__name__}")
    overridden = [_override(data, each) for each in overrides]
    return validate(data, schema, lambda place: _where(path, node, place, overridden))


def validate(data: Any, schema: type[T], where: Any = lambda place: "settings") -> T:
    """Check `data` against `schema`; the first fault becomes one RecipeError line."""
    adapter = _adapter(schema)
    try:
        made: T = adapter.validate_python(data)
        return made
    except pydantic.ValidationError as error:
        faults = error.errors(include_url=False)
        fault, place = _first(faults, data)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        if fault["type"] == "union_tag_invalid":  # the fault is the tag, not the whole mapping
            place = (*place, fault["ctx"]["discriminator"].strip("'"))
        message = _explain(fault, place, adapter.json_schema(mode="validation"))
        raise RecipeError(f"{where(place)}: {message}{more}") from None


def to_plain(value: Any) -> Any:
    """Write settings as plain JSON values, every default included, such that `validate` gives them back."""
    return _adapter(type(value)).dump_python(value, mode="json")


def locate(path: Path, place: Location) -> str:
    """Say where in a YAML file a place stands, as `file:line`; the nearest place around it if it is not there."""
    return _where(path, read_yaml(path)[0], place, [])


def override(data: Any, key: str, value: Any, what: str) -> Location:
    """Put `value` at the key path `key`, such as `steps.0.modules`, into `data` in place, and return the path.

    Raises:
        RecipeError: beginning with `what`, if the path goes through something that is not there.
    """
    parts: list[int | str] = [int(part) if part.isdecimal() else part for part in key.split(".")]
    for part in parts[:-1]:
        if isinstance(data, dict):
            data = data.setdefault(part, {})
        elif _holds(data, part):
            data = data[part]
        else:
            raise RecipeError(f"{what}: there is no '{part}' in the recipe")
    last = parts[-1]
    if not isinstance(data, dict) and not _holds(data, last):
        raise RecipeError(f"{what}: there is no '{last}' in the recipe")
    data[last] = value
    return tuple(parts)


def _adapter(schema: Any) -> pydantic.TypeAdapter[Any]:
    """Build the checker of a schema once: a study checks hundreds of recipes."""
    if schema not in _ADAPTERS:
        _ADAPTERS[schema] = pydantic.TypeAdapter(schema)
    return _ADAPTERS[schema]


def _first(faults: Sequence[Any], data: Any) -> tuple[Any, Location]:
    """Choose the fault to speak of: the first, or one inside of a list that might have been something else."""
    first = _data_place(faults[0]["loc"], data)
    if not isinstance(faults[0].get("input"), list):
        return faults[0], first
    places = [(fault, _data_place(fault["loc"], data)) for fault in faults]
    inside = [(fault, place) for fault, place in places if place[: len(first)] == first]
    return max(inside, key=lambda each: len(each[1]))


def _explain(fault: Any, place: Location, schema: dict[str, Any]) -> str:
    location, kind = fault["loc"], fault["type"]
    key = ".".join(str(part) for part in place)
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key '{location[-1]}'; {suggest(location[-1], _allowed_keys(schema, location[:-1]))}"
    if kind == "union_tag_invalid":
        context = fault["ctx"]
        allowed = [each.strip().strip("'") for each in context["expected_tags"].split(",")]
        return f"{key}: no {context['discriminator']} '{context['tag']}'; {suggest(context['tag'], allowed)}"
    if kind in ("missing", "missing_argument", "union_tag_not_found", "missing_keyword_only_argument"):
        last = fault["ctx"]["discriminator"].strip("'") if kind == "union_tag_not_found" else location[-1]
        name = ".".join(str(part) for part in (*place, last))
        return f"the key '{name}' is missing"
    given = fault.get("input")
    message = fault["msg"].removeprefix("Value error, ")
    shown = f"{key}: {message[0].lower() + message[1:]}" if key else message
    written = str(given).lower() if isinstance(given, bool) else repr(given)  # as YAML has it
    return shown + (f", not {written}" if _is_short(given) else "")


def _is_short(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool)) and len(repr(value)) < 80


def _allowed_keys(schema: dict[str, Any], location: Location) -> list[str]:
    """Walk a JSON schema along `location` and list the keys allowed there."""
    here: dict[str, Any] = schema
    for part in location:
        here = _resolve(here, schema)
        tags = here.get("discriminator", {}).get("mapping", {})
        if part in tags:
            here = {"$ref": tags[part]}
        elif isinstance(part, int):
            here = here.get("items", {})
        else:
            here = here.get("properties", {}).get(part, here)
    return list(_resolve(here, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        else:
            choices = [each for each in node["anyOf"] if "$ref" in each or "properties" in each or "items" in each]
            if not choices:
                return node
            node = choices[0]
    return node


def _data_place(location: Location, data: Any) -> Location:
    """Drop the union tags that pydantic puts into a location, leaving the path through the data itself."""
    place: list[int | str] = []
    for part in location:
        if _holds(data, part):
            data = data[part]
            place.append(part)
    return tuple(place)


def _holds(data: Any, part: int | str) -> bool:
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, Mapping) and part in data


def _where(path: Path, node: yaml.Node | None, place: Location, overridden: list[Location]) -> str:
    for each in reversed(overridden):
        if place and place[: len(each)] == each:
            return f"--set {'.'.join(str(part) for part in each)}"
    line = 1
    for part in place:
        found = _child(node, part)
        if found is None:  # not in the file: an override brought it
            made = next((each for each in reversed(overridden) if each[: len(place)] == place), None)
            if made is not None:
                return f"--set {'.'.join(str(part) for part in made)}"
            break
        mark, node = found
        line = mark.start_mark.line + 1
    return f"{path}:{line}"


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def parse_override(text: str) -> tuple[str, Any]:
    """Split `key.path=value` and read the value as YAML.

    Raises:
        RecipeError: if it is not of that form.
    """
    key, equals, raw = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {text}: write key=value, such as --set steps.0.modules=4")
    return key, parse_yaml(raw, f"--set {text if len(text) < 80 else text[:80] + '…'}", lines=False)[1]


def _override(data: Any, text: str) -> Location:
    """Apply one `key.path=value` to `data` in place and return the path."""
    return override(data, *parse_override(text), f"--set {text}")
