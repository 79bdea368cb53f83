"""What is wrong with a recipe, in words: pydantic's errors as one line that names the key and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from plankwise.core.errors import suggest

Location = tuple[int | str, ...]  # a path through the data, such as ("steps", 0, "modules")


def explain(error: pydantic.ValidationError, data: Any, schema: dict[str, Any]) -> tuple[Location, str]:
    """Describe the first error, and count the others.

    Args:
        error: raised while validating `data`.
        data: plain values.
        schema: the JSON schema that they do not fit.

    Returns:
        The place in the data that the error is about, and the message.
    """
    faults = error.errors(include_url=False)
    fault, place = _first(faults, data)
    if fault["type"] == "union_tag_invalid":  # the wrong value is the tag, not the whole mapping
        place = (*place, fault["ctx"]["discriminator"].strip("'"))
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return place, f"{_message(fault, place, schema)}{more}"


def dotted(place: Location) -> str:
    """Write a place as a key path."""
    return ".".join(str(part) for part in place)


def holds(data: Any, part: int | str) -> bool:
    """Return whether a mapping has this key, or a list this index."""
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, Mapping) and part in data


def _first(faults: Sequence[Any], data: Any) -> tuple[Any, Location]:
    """Choose the error to report.

    The first one, unless it says that a list should have been something else: pydantic reports an error for each member
    of a union, and the one deepest inside the list is the one that the user can act on.
    """
    first = _data_place(faults[0]["loc"], data)
    if not isinstance(faults[0].get("input"), list):
        return faults[0], first
    places = [(fault, _data_place(fault["loc"], data)) for fault in faults]
    inside = [(fault, place) for fault, place in places if place[: len(first)] == first]
    return max(inside, key=lambda each: len(each[1]))


def _message(fault: Any, place: Location, schema: dict[str, Any]) -> str:
    """Put an error of pydantic into words: the key, what is allowed, what was given."""
    location, kind, key = fault["loc"], fault["type"], dotted(place)
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key '{location[-1]}'; {suggest(location[-1], _allowed_keys(schema, location[:-1]))}"
    if kind == "union_tag_invalid":
        context = fault["ctx"]
        allowed = [each.strip().strip("'") for each in context["expected_tags"].split(",")]
        return f"{key}: no {context['discriminator']} '{context['tag']}'; {suggest(context['tag'], allowed)}"
    if kind in ("missing", "missing_argument", "union_tag_not_found", "missing_keyword_only_argument"):
        last = fault["ctx"]["discriminator"].strip("'") if kind == "union_tag_not_found" else location[-1]
        return f"the key '{dotted((*place, last))}' is missing"
    given, message = fault.get("input"), fault["msg"].removeprefix("Value error, ")
    text = f"{key}: {message[0].lower() + message[1:]}" if key else message
    if not isinstance(given, (str, int, float, bool)) or len(repr(given)) >= 80:
        return text
    return f"{text}, not {str(given).lower() if isinstance(given, bool) else repr(given)}"  # true, as YAML spells it


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
    """Follow references, and of alternatives the first that has keys or items."""
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
    """Drop the union tags that pydantic puts into a location, leaving the place in the data."""
    place: list[int | str] = []
    for part in location:
        if holds(data, part):
            data = data[part]
            place.append(part)
    return tuple(place)
