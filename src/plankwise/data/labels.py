"""The labels of a table: how cells become label names, and how a recipe renames, merges or drops them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pydantic

from plankwise.core.errors import DataError


def plain(value: Any) -> str:
    """Write a key of the mapping, or a cell, such that one label looks alike in YAML, CSV, JSON lines and Parquet.

    1, 1.0, "1" and " 1.0 " are all "1"; true, True and "TRUE" are "true"; an empty cell, a null and NaN are "".
    """
    if is_missing(value):
        return ""
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def is_missing(value: Any) -> bool:
    """Tell a null or NaN from a value."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _named(given: Any) -> Any:
    """Make the mapping's keys and names plain strings; null stays null."""
    if not isinstance(given, Mapping):
        return given
    made: dict[str, str | None] = {}
    for key, value in given.items():
        if isinstance(value, (dict, list)):
            raise ValueError(f"the label '{key}' is mapped to {value!r}; allowed: a name, or null to drop its rows")
        name = None if value is None else plain(value)
        if name == "":
            raise ValueError(f"the label '{key}' is mapped to an empty name; allowed: a name, or null to drop its rows")
        if made.get(plain(key), name) != name:
            raise ValueError(f"the label '{plain(key)}' is mapped twice, to '{made[plain(key)]}' and '{name}'")
        made[plain(key)] = name
    return made


LabelNames = Annotated[dict[str, str | None], pydantic.Field(min_length=1), pydantic.BeforeValidator(_named)]


class UnnamedLabelError(ValueError):
    """A raw label that the mapping does not name."""


def rename(raw: list[Any], names: Mapping[str, str | None]) -> list[str] | None:
    """Rename the raw labels of one row, several of which may become one.

    Returns:
        The names, or nothing where a label is mapped to null and its row is to be dropped.

    Raises:
        UnnamedLabelError: for a raw label that `names` does not hold.
    """
    for each in raw:
        if plain(each) not in names:
            raise UnnamedLabelError(plain(each))
    found = [names[plain(each)] for each in raw]
    kept = [name for name in found if name is not None]
    return list(dict.fromkeys(kept)) if len(kept) == len(found) else None


def check_columns(label: str | list[str], names: Mapping[str, str | None] | None) -> None:
    """Refuse new names for columns that are not there, and columns without one, before any file is read."""
    if isinstance(label, list) and names is not None:
        wrong = {plain(column) for column in label} ^ names.keys()
        if wrong:
            raise ValueError(
                f"labels has to name every column of label and nothing else, unlike '{min(wrong)}'; "
                f"allowed: {', '.join(label)}"
            )


def parts_of(cell: Any, separator: str) -> list[str]:
    """Take apart a cell of several labels: text with separators, or a list."""
    if isinstance(cell, (list, np.ndarray)):
        parts = [str(part) for part in cell]
    else:
        parts = [] if is_missing(cell) else str(cell).split(separator)
    return [part.strip() for part in parts if part.strip()]


def flagged(values: list[Any], names: list[str], where: str, secret: bool) -> list[str]:
    """Give the names of the columns whose cells say yes.

    Raises:
        DataError: for a cell that is neither 0 nor 1.
    """
    chosen = []
    for name, value in zip(names, values, strict=True):
        if str(value).strip().lower() not in ("0", "1", "0.0", "1.0", "true", "false"):
            shown = "something else" if secret else f"'{value}'"
            raise DataError(f"{where}: the column '{name}' holds {shown}; allowed: 0, 1, true, false")
        if str(value).strip().lower() in ("1", "1.0", "true"):
            chosen.append(name)
    return chosen
