"""From the cells of a table to labelled texts, with checks of every text and label."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Container, Mapping
from itertools import chain
from typing import Any, Protocol

from plankwise.core.errors import DataError
from plankwise.data.table_io import is_text
from plankwise.data.task import Access, LabelledText
from plankwise.data.tasks.labels import (
    UnnamedLabelError,
    flagged,
    look_alikes,
    parts_of,
    plain,
    read_label,
    rename,
    shown_counts,
)
from plankwise.data.tasks.scores import read_score

logger = logging.getLogger(__name__)
NOT_TEXT = "holds a NUL or half of a surrogate pair; allowed: text"
LOOK_ALIKE = (
    "differ in case, spaces or Unicode form alone; name them in labels, as one class (labels: {A: a, a: a}) or several"
)


class Labelled(Protocol):
    """Settings that name the columns of a table."""

    @property
    def text(self) -> str:
        """Column of the text."""
        ...

    @property
    def text_pair(self) -> str | None:
        """Column of a second text."""
        ...

    @property
    def label(self) -> str | list[str]:
        """Column of the label, or columns of 0 and 1."""
        ...

    @property
    def score(self) -> str | None:
        """Column of a score, in the place of labels."""
        ...

    @property
    def label_separator(self) -> str | None:
        """Splits the one label column."""
        ...

    @property
    def labels(self) -> dict[str, str | None] | None:
        """Names of the raw labels."""
        ...

    @property
    def access(self) -> Access:
        """Whether text and labels may be shown."""
        ...


def rows_of(
    table: Mapping[str, list[Any]],
    source: Labelled,
    where: str,
    *,
    declared: Container[str] = (),
    identifier: str | None = None,
) -> list[LabelledText]:
    """Return the labelled texts of a table; messages name rows by number and never quote text.

    Args:
        table: columns by name.
        source: names the columns.
        where: for messages.
        declared: names of classes that the data set itself declares; these are always accepted.
        identifier: column of ids; row numbers by default.

    Raises:
        DataError: for a cell that holds no text, a label cell that is empty or holds no label, or a score that is no
            number.
    """
    labels = _labels(table, source, where, declared) if source.score is None else _scores(table, source.score, where)
    kept = [row for row, label in enumerate(labels) if label is not None]
    if len(kept) < len(labels):
        logger.info(
            "%s: %d of %d rows dropped, their label is mapped to null", where, len(labels) - len(kept), len(labels)
        )
    texts = _texts(table, source.text, kept, where)
    pairs = _texts(table, source.text_pair, kept, where) if source.text_pair else [None] * len(kept)
    ids = table[identifier] if identifier else list(range(1, len(labels) + 1))
    for row in kept:
        if isinstance(ids[row], str) and not is_text(ids[row]):
            raise DataError(f"{where}, row {row + 1}: the column '{identifier}' {NOT_TEXT}")
    return [
        {"id": str(ids[row]), "text": text, "text_pair": pair, "label": labels[row]}
        for row, text, pair in zip(kept, texts, pairs, strict=True)
    ]


def _scores(table: Mapping[str, list[Any]], column: str, where: str) -> list[Any]:
    scores = []
    for number, cell in enumerate(table[column], 1):
        try:
            scores.append(read_score(cell))
        except ValueError as error:
            raise DataError(f"{where}, row {number}: the column '{column}' {error}") from None
    return scores


def _texts(table: Mapping[str, list[Any]], column: str, kept: list[int], where: str) -> list[str]:
    values = table[column]
    for row in kept:
        if not isinstance(values[row], str) or not values[row].strip():
            raise DataError(f"{where}, row {row + 1}: the column '{column}' holds no text")
        if not is_text(values[row]):
            raise DataError(f"{where}, row {row + 1}: the column '{column}' {NOT_TEXT}")
    return [values[row] for row in kept]


def _labels(table: Mapping[str, list[Any]], source: Labelled, where: str, declared: Container[str]) -> list[Any]:
    """Return each row's label, or list of labels, or None where the row is to be dropped."""
    columns = source.label if isinstance(source.label, list) else [source.label]
    known = declared if source.labels is None else source.labels
    several = isinstance(source.label, list) or source.label_separator is not None
    labels: list[Any] = []
    written: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for number, cells in enumerate(zip(*(table[column] for column in columns), strict=True), 1):
        at = f"{where}, row {number}"
        if isinstance(source.label, list):
            raw = flagged(list(cells), columns, at, source.access == "credentialed")
        else:
            parts = parts_of(cells[0], source.label_separator) if source.label_separator is not None else [cells[0]]
            unlabelled = source.labels is not None and "" in source.labels and not any(map(plain, parts))
            raw = [""] if unlabelled else [_read_label(part, known, source.label, at) for part in parts]
            if not several and not unlabelled:
                written[raw[0]][str(cells[0])] += 1
        found = raw if source.labels is None else _renamed(raw, source, at)
        labels.append(found if several or found is None else found[0])
    _warn_of_merged(written, where, source.access)
    if source.labels is None and not isinstance(source.label, list):
        _refuse_look_alikes(labels, declared, where, source.access)
    return labels


def _read_label(cell: Any, known: Container[str], column: str, where: str) -> str:
    try:
        return read_label(cell, known)
    except ValueError as error:
        raise DataError(f"{where}: the column '{column}' {error}") from None


def _warn_of_merged(written: Mapping[str, Counter[str]], where: str, access: Access) -> None:
    """Warn of spellings that are read as one label: with spaces around them, or 1 and 1.0."""
    for label, spellings in written.items():
        if len(spellings) > 1:
            open_ = access != "credentialed"
            shown = f"{shown_counts(spellings.most_common())} are" if open_ else f"{len(spellings)} spellings are"
            logger.warning("%s: %s read as the one label%s", where, shown, f" '{label}'" if open_ else "")


def _refuse_look_alikes(labels: list[Any], declared: Container[str], where: str, access: Access) -> None:
    every = chain.from_iterable(label if isinstance(label, list) else [label] for label in labels)
    groups = look_alikes(every, declared)
    if not groups:
        return
    if access == "credentialed":
        counts = " and ".join(str(count) for _, count in groups[0])
        raise DataError(f"{where}: labels in {counts} rows {LOOK_ALIKE}")
    raise DataError(f"{where}: the labels {shown_counts(groups[0])} {LOOK_ALIKE}")


def _renamed(raw: list[Any], source: Labelled, where: str) -> list[str] | None:
    assert source.labels is not None
    try:
        return rename(raw, source.labels)
    except UnnamedLabelError as error:
        shown = "a label" if source.access == "credentialed" else f"the label '{error}'"
        raise DataError(f"{where}: {shown} is not named in labels; allowed: {', '.join(source.labels)}") from None
