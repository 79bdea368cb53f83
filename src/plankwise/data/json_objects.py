"""One line of JSON as an object, or what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

Malformed = str  # what is wrong with the shape of a row


def parse_object(line: str) -> dict[str, Any] | Malformed:
    """Parse a line of JSON that should hold an object, or return what is wrong with it."""
    try:
        row = _DECODER.decode(line.strip())
    except _DuplicateKeyError:
        return "a key is there twice"
    except (ValueError, RecursionError):
        return "not a line of JSON"
    return row if isinstance(row, dict) else "not a JSON object"


class _DuplicateKeyError(ValueError):
    """An object has a key twice; Python would silently keep the last."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _DuplicateKeyError
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates)
