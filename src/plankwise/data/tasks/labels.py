"""The labels of a table: how cells become label names, and how a recipe renames, merges or drops them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pydantic

from plankwise.core.errors import DataError
from plankwise.data.table_io import is_text

MISSING = frozenset(("nan", "-nan", "na", "n/a", "#na", "#n/a", "<na>", "null", "nat"))  # in any case
MISSING_AS_WRITTEN = "None"  # Python's; `none` and `NONE` are words that name classes
_FRACTION = re.compile(r"[-+]?\d*\.\d+(e[-+]?\d+)?|[-+]?\d+e-\d+", re.I)
_KINDS = {dict: "an object", bytes: "bytes", list: "a list", tuple: "a list", np.ndarray: "a list", set: "a list"}


def plain(value: Any) -> str:
    """Return a key of `labels`, or a cell, as a string that is the same in YAML, CSV, JSON lines and Parquet.

    1, 1.0, "1" and " 1.0 " are all "1"; true, True and "TRUE" are "true"; an empty cell, a null and NaN are "".
    """
    if is_missing(value):
        return ""
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def is_missing(value: Any) -> bool:
    """Return whether a value is null or NaN."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def read_label(cell: Any, known: Container[str]) -> str:
    """Return the label in a cell.

    A spelling of a missing value, or a number that is not whole, is a label only if it is `known`, written by `plain`.

    Raises:
        ValueError: saying why the cell is not a label; only a missing value or a number is quoted.
    """
    kind = next((said for kind, said in _KINDS.items() if isinstance(cell, kind)), None)
    if kind is not None:
        raise ValueError(f"holds {kind}; allowed: one label (label_separator is for several)")
    text = "" if is_missing(cell) else str(cell).strip()
    if isinstance(cell, float) and cell.is_integer():
        text = str(int(cell))
    if not folded(text):
        raise ValueError("is empty")
    if not is_text(text):
        raise ValueError("holds a NUL or half of a surrogate pair; allowed: text")
    if plain(text) in known:
        return text
    if text.casefold() in MISSING or text == MISSING_AS_WRITTEN:
        raise ValueError(f"holds '{text}', which reads as a missing value; if it is a class, name it in labels")
    if (_FRACTION.fullmatch(text) and float(text) % 1) or (isinstance(cell, float) and not cell.is_integer()):
        raise ValueError("holds a number that is not whole; if it is a class, name it in labels")
    return text


def _named(given: Any) -> Any:
    """Turn keys and names of the mapping into plain strings; null stays null."""
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


def _as_names(given: Any) -> Any:
    """Turn whole numbers, as YAML reads the labels 0 and 1, into strings."""
    if isinstance(given, Mapping):
        return {_as_names(key): _as_names(value) for key, value in given.items()}
    if isinstance(given, (list, tuple)):
        return [_as_names(each) for each in given]
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else given


def _all_different(classes: tuple[str, ...]) -> tuple[str, ...]:
    twice = next((name for name, count in Counter(classes).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"the label '{twice}' is named twice; allowed: each label once")
    return classes


_Name = Annotated[str, pydantic.Field(min_length=1)]
HeadLabels = Annotated[dict[str, _Name], pydantic.Field(min_length=1), pydantic.BeforeValidator(_as_names)]
ClassNames = Annotated[
    tuple[_Name, ...],
    pydantic.Field(min_length=1),
    pydantic.BeforeValidator(_as_names),
    pydantic.AfterValidator(_all_different),
]


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


def check_columns(
    label: str | list[str], names: Mapping[str, str | None] | None, others: Mapping[str, str | None]
) -> None:
    """Refuse a column that is named twice, and names in `labels` that do not match the columns.

    Args:
        label: its column or columns.
        names: of raw labels.
        others: key of the recipe to the column that it names, if any.
    """
    taken: dict[str, str] = {}
    labels = label if isinstance(label, list) else [label]
    for key, column in [*(("label", each) for each in labels), *others.items()]:
        if column in taken:
            by = f"twice in {key}" if taken[column] == key else f"by {taken[column]} and by {key}"
            raise ValueError(f"the column '{column}' is named {by}; allowed: each column once")
        if column is not None:
            taken[column] = key
    if isinstance(label, list) and names is not None:
        wrong = {plain(column) for column in label} ^ names.keys()
        if wrong:
            raise ValueError(
                f"labels has to name every column of label and nothing else, unlike '{min(wrong)}'; "
                f"allowed: {', '.join(label)}"
            )


def parts_of(cell: Any, separator: str) -> list[Any]:
    """Split a cell of several labels: text with separators, or a list."""
    if isinstance(cell, (list, np.ndarray)):
        return [part for part in cell if not isinstance(part, str) or part.strip()]
    if isinstance(cell, (dict, bytes)):
        return [cell]  # not a label either
    return [] if is_missing(cell) else [part for part in str(cell).split(separator) if part.strip()]


def flagged(values: list[Any], names: list[str], where: str, secret: bool) -> list[str]:
    """Return the names of the columns with a true cell.

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


def look_alikes(labels: Iterable[str], known: Container[str] = ()) -> list[list[tuple[str, int]]]:
    """Group labels that differ in case, spaces, invisible characters or Unicode form alone, with their counts.

    Args:
        labels: of all rows.
        known: labels that are taken as they are written.

    Example:
        >>> look_alikes(["hate", "Hate", "none", "hate"])
        [[('hate', 2), ('Hate', 1)]]
    """
    groups: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for label, count in Counter(labels).most_common():
        if plain(label) not in known:
            groups[folded(label)].append((label, count))
    return [group for group in groups.values() if len(group) > 1]


def shown_counts(counts: Iterable[tuple[str, int]], max_labels: int = 10) -> str:
    """Format the first labels with their counts, for messages.

    Example:
        >>> shown_counts([("Hate", 3), ("hate", 12)])
        "'Hate' (3), 'hate' (12)"
    """
    every = list(counts)
    alike = len({unicodedata.normalize("NFC", label) for label, _ in every}) < len(every)
    write = ascii if alike else repr  # in some forms of Unicode the same letters are different strings
    shown = ", ".join(f"{write(label)} ({count})" for label, count in every[:max_labels])
    return shown + (f" and {len(every) - max_labels} more" if len(every) > max_labels else "")


@lru_cache(4096)
def folded(label: str) -> str:
    """Return a label without what look-alikes differ in: case, spaces, invisible characters and Unicode form."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain(label)).casefold())
    return "".join(each for each in text if not each.isspace() and unicodedata.category(each) != "Cf")
