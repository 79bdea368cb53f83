"""The examples that models are compared on: rows of files, or a split of a recipe's task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.errors import DataError, suggest
from plankwise.data.batching.inputs import Text
from plankwise.data.given.columns import ColumnOptions
from plankwise.data.given.rows import form_of, read_given
from plankwise.data.label_columns import LabelColumn, label_column
from plankwise.data.splitting import LabelledText
from plankwise.data.table_io import read_table
from plankwise.data.task import Task
from plankwise.data.text_files import TextFormat, kind_of
from plankwise.evaluation.metrics import Array
from plankwise.evaluation.score_metrics import are_scores


@dataclass(frozen=True)
class LabelledRows:
    """Examples with their labels.

    Attributes:
        texts: texts, or pairs of texts.
        labels: index of each one's class, [rows], or 0 and 1 for each class, [rows, classes], or scores, [rows].
        columns: other columns, by name.
        said: what was guessed and left out, in lines to print.
    """

    texts: Sequence[Text]
    labels: Array
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    @property
    def plain_texts(self) -> list[str]:
        """Texts as one string each; those of a pair are joined."""
        return [text if isinstance(text, str) else " ".join(text) for text in self.texts]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs of texts; empty where there are single texts."""
        return [text for text in self.texts if not isinstance(text, str)]


@dataclass(frozen=True)
class FileOptions:
    """How files are read.

    Attributes:
        columns: that are given; others are guessed.
        names: from raw labels to labels of the models, where these differ.
        form: encoding of text files and delimiter of CSV.
    """

    columns: ColumnOptions = field(default_factory=ColumnOptions)
    names: Mapping[str, str] = field(default_factory=dict)
    form: TextFormat = field(default_factory=TextFormat)


def rows_of_files(
    files: Sequence[Path],
    classes: Sequence[str],
    options: FileOptions,
    *,
    kind: str = "single_label",
    slice_columns: Sequence[str] = (),
) -> LabelledRows:
    """Read the rows of files that have a label; those without are left out, which is said.

    Args:
        files: as `read_given` takes them.
        classes: labels of the models, in the order of the logits.
        options: how files are read.
        kind: of the models' answers, as in a manifest.
        slice_columns: other columns to read.

    Raises:
        DataError: if a file cannot be read, lacks a column, or no row has a label.
    """
    column = label_column(kind)
    given = read_given(
        files,
        model_labels=classes,
        kind=kind,
        options=options.columns,
        names=options.names,
        form=options.form,
    )
    labelled = given.labelled
    if not labelled:
        hints = "".join(f"; {columns.hint}" for columns in given.columns.values() if columns.hint)
        what = "score" if column.scores else "label"
        raise DataError(
            f"{', '.join(map(str, files))}: no row has a {what}; models are compared by their scores{hints}"
        )
    said = [*given.said]
    if given.unlabelled:
        said.append(f"{len(given.unlabelled):,} rows without a label are left out")
    columns: dict[str, list[Any]] = {name: [] for name in slice_columns}
    for path, rows in given.by_file.items():
        there = _columns_of(path, slice_columns, options.form)
        for name, cells in there.items():
            columns[name] += [cell for cell, row in zip(cells, rows, strict=True) if row["label"] is not None]
    return LabelledRows([_text_of(row) for row in labelled], as_array(labelled, classes, column), columns, tuple(said))


def rows_of_split(task: Task, split: str, classes: Sequence[str]) -> LabelledRows:
    """Return a split of a task, with its labels in the order of the classes.

    Raises:
        DataError: if there is no such split, or the task has other labels.
    """
    if set(task.labels) != set(classes):
        raise DataError(f"the baseline knows the labels {list(classes)}, the task has {list(task.labels)}")
    if split not in task.splits:
        raise DataError(f"no split '{split}'; {suggest(split, task.splits)}")
    rows = task.splits[split]
    if "text_pair" in rows.column_names:
        texts: list[Text] = list(zip(rows["text"][:], rows["text_pair"][:], strict=True))
    else:
        texts = list(rows["text"][:])
    labels = np.asarray(rows["label"][:])
    if are_scores(labels):
        return LabelledRows(texts, labels)
    order = [task.labels.index(name) for name in classes]
    if labels.ndim == 2:
        return LabelledRows(texts, labels[:, order])
    return LabelledRows(texts, np.argsort(order)[labels])


def as_array(rows: Sequence[LabelledText], classes: Sequence[str], column: LabelColumn) -> Array:
    """Turn labels into indices of classes or scores, [rows], or into 0 and 1 for each class, [rows, classes]."""
    index = {name: place for place, name in enumerate(classes)}
    return np.array([column.store(row["label"], index) for row in rows])


def _columns_of(path: Path, names: Sequence[str], form: TextFormat) -> dict[str, list[Any]]:
    if not names:
        return {}
    if kind_of(path) == ".txt":
        raise DataError(f"{path}: a file of one text a line has no column '{names[0]}' to cut slices by")
    return read_table(path, list(names), form_of(path, form))


def _text_of(row: LabelledText) -> Text:
    pair = row.get("text_pair")
    return str(row["text"]) if pair is None else (str(row["text"]), str(pair))
