"""Any table, or any dataset of the `datasets` library, as a task: one text, or a pair; one label, or several."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import datasets
import pandas as pd
import pydantic

from plankwise.core.errors import DataError, suggest
from plankwise.core.numbers import Seed, Share
from plankwise.core.places import check_file
from plankwise.core.recipe import settings
from plankwise.data.labels import (
    LabelNames,
    UnnamedLabelError,
    check_columns,
    flagged,
    is_missing,
    parts_of,
    plain,
    rename,
)
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN, Access, Row, Task, build_task

logger = logging.getLogger(__name__)
Delimiter = Literal[",", ";", "|", "\t"]
MetricName = Literal["accuracy", "macro_f1", "micro_f1", "official_f", "auroc", "average_precision"]
READERS = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON lines", ".parquet": "Parquet"}


@settings
class Table:
    """A task in table files: CSV, TSV, JSON lines or Parquet, told apart by their endings.

    Attributes:
        train: file to train on.
        development: file to select on; cut from train if not given.
        test: file to report on; cut from train if not given.
        text: column of the text.
        text_pair: column of a second text, for pair tasks.
        label: column of the label; a list of columns holding 0 and 1 makes a multi-label task.
        label_separator: splits the one label column into several labels and makes a multi-label task.
        labels: names of the raw labels, `{1: hate, 0: none}`; several may share a name, and null drops the rows that
            carry the label. With a list of columns it renames these. A raw label without a name is refused.
        delimiter: between the cells of CSV files.
        id: column of an identifier; row numbers otherwise.
        title: what reports call the task; the name of the train file otherwise.
        metrics: the first selects checkpoints.
        access: `credentialed` keeps all text out of records, reports, logs and messages.
        development_share: share cut from train if no development file is given.
        test_share: share cut from train if no test file is given.
        split_seed: seed of these cuts.
    """

    name: Literal["table"] = "table"
    train: Path
    development: Path | None = None
    test: Path | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str | list[str] = "label"
    label_separator: Annotated[str, pydantic.Field(min_length=1)] | None = None
    labels: LabelNames | None = None
    delimiter: Delimiter | None = None
    id: str | None = None
    title: str | None = None
    metrics: Annotated[tuple[MetricName, ...], pydantic.Field(min_length=1)] = ("macro_f1", "accuracy")
    access: Access = "open"
    development_share: Share = 0.1
    test_share: Share = 0.2
    split_seed: Seed = 0

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> Table:
        files = [path for path in (self.train, self.development, self.test) if path is not None]
        others = [str(path) for path in files if path.suffix.lower() != ".csv"]
        if self.delimiter is not None and others:
            raise ValueError(f"delimiter is for .csv files, not {others[0]}")
        check_columns(self.label, self.labels)
        return self

    def load(self) -> Task:
        """Read the files and check them."""
        given = {TRAIN: self.train, DEVELOPMENT: self.development, TEST: self.test}
        splits = {
            part: rows_of(read_table(path, self.delimiter), self, str(path)) for part, path in given.items() if path
        }
        return _build(self, splits, self.title or self.train.stem)


@settings
class HubDataset:
    """A task from the `datasets` library: a Hub id or a local dataset folder. Other attributes as for a table.

    Attributes:
        id: Hub id or folder.
        configuration: the dataset's configuration, such as `sst2` of `glue`.
        train: name of the split to train on.
        development: name of the split to select on; cut from train if not given.
        test: name of the split to report on; cut from train if not given.
    """

    name: Literal["dataset"] = "dataset"
    id: str
    configuration: str | None = None
    train: str = "train"
    development: str | None = None
    test: str | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str | list[str] = "label"
    label_separator: Annotated[str, pydantic.Field(min_length=1)] | None = None
    labels: LabelNames | None = None
    title: str | None = None
    metrics: Annotated[tuple[MetricName, ...], pydantic.Field(min_length=1)] = ("macro_f1", "accuracy")
    access: Access = "open"
    development_share: Share = 0.1
    test_share: Share = 0.2
    split_seed: Seed = 0

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> HubDataset:
        check_columns(self.label, self.labels)
        return self

    def load(self) -> Task:
        """Load the splits and check them."""
        given = {TRAIN: self.train, DEVELOPMENT: self.development, TEST: self.test}
        splits = {part: self._rows(split) for part, split in given.items() if split is not None}
        return _build(self, splits, self.title or self.id)

    def _rows(self, split: str) -> list[Row]:
        where = f"{self.id}[{split}]"
        try:
            data = datasets.load_dataset(self.id, self.configuration, split=split)
        except Exception as error:  # the library raises many kinds, most of them its own
            lines = str(error).splitlines()
            raise DataError(f"cannot load the dataset {where}: {lines[0] if lines else error!r}") from None
        frame = data.to_pandas()
        for column, feature in data.features.items():
            if isinstance(feature, datasets.ClassLabel):
                frame[column] = [_class_name(feature, value) for value in frame[column]]
        return rows_of(frame, self, where)


def _class_name(feature: Any, value: Any) -> str | None:
    return None if pd.isna(value) or value < 0 else feature.int2str(int(value))


def _build(source: Table | HubDataset, splits: Mapping[str, list[Row]], title: str) -> Task:
    several = source.label_separator is not None or isinstance(source.label, list)
    return build_task(
        title,
        splits,
        tuple(source.metrics),
        kind="multi_label" if several else "single_label",
        access=source.access,
        development_share=source.development_share,
        test_share=source.test_share,
        split_seed=source.split_seed,
    )


def read_table(path: Path, delimiter: str | None = None) -> pd.DataFrame:
    """Read a table with every cell as it stands; empty cells are empty strings.

    Raises:
        DataError: if the file is missing, of another kind, or malformed.
    """
    kind = path.suffix.lower()
    if kind not in READERS:
        raise DataError(f"{path}: no reader for '{kind}' files; allowed: {', '.join(READERS)}")
    try:
        check_file(path)
        if kind == ".parquet":
            return pd.read_parquet(path)
        if kind == ".jsonl":
            lines = path.read_text(encoding="utf-8-sig").split("\n")
            return pd.DataFrame([json.loads(line) for line in lines if line.strip()], dtype=object)
        separator = delimiter or ("," if kind == ".csv" else "\t")
        frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        if not isinstance(frame.index, pd.RangeIndex):
            raise ValueError("rows have more cells than the header")  # pandas would shift the columns
        if kind == ".tsv" and (swallowed := _swallowed(frame)):
            raise ValueError(f"row {swallowed}: a quote opens a cell that runs on over tabs and lines; double it")
        return frame
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, pd.errors.ParserError) as error:
        lines = str(error).splitlines() or ["empty"]
        raise DataError(f"{path} is not a {READERS[kind]} table: {lines[0]}") from None


def _swallowed(frame: pd.DataFrame) -> int | None:
    """Find the first row whose cell holds a tab and a line break: most likely a stray quote swallowed other rows."""
    for number, row in enumerate(frame.itertuples(index=False), 1):
        if any("\t" in cell and "\n" in cell for cell in row if isinstance(cell, str)):
            return number
    return None


def rows_of(frame: pd.DataFrame, source: Table | HubDataset, where: str) -> list[Row]:
    """Take the named columns out of a table; messages name rows by number and never quote text.

    Raises:
        DataError: for a missing column, a cell that holds no text, or a label cell that is empty.
    """
    label_columns = source.label if isinstance(source.label, list) else [source.label]
    identifier = source.id if isinstance(source, Table) else None
    named = [source.text, *label_columns, *filter(None, (source.text_pair, identifier))]
    for column in named:
        if column not in frame.columns:
            raise DataError(f"{where}: there is no column '{column}'; {suggest(column, frame.columns)}")
    labels = _labels(frame, source, where)
    kept = [row for row, label in enumerate(labels) if label is not None]
    if len(kept) < len(labels):
        logger.info(
            "%s: %d of %d rows dropped, their label is mapped to null", where, len(labels) - len(kept), len(labels)
        )
    texts = _texts(frame[source.text], kept, where)
    pairs = _texts(frame[source.text_pair], kept, where) if source.text_pair else [None] * len(kept)
    ids = frame[identifier].tolist() if identifier else list(range(1, len(labels) + 1))
    return [
        {"id": str(ids[row]), "text": text, "text_pair": pair, "label": labels[row]}
        for row, text, pair in zip(kept, texts, pairs, strict=True)
    ]


def _texts(column: pd.Series[Any], kept: list[int], where: str) -> list[str]:
    values = column.tolist()
    for row in kept:
        if not isinstance(values[row], str) or not values[row].strip():
            raise DataError(f"{where}, row {row + 1}: the column '{column.name}' holds no text")
    return [values[row] for row in kept]


def _labels(frame: pd.DataFrame, source: Table | HubDataset, where: str) -> list[Any]:
    """Give each row's label, or list of labels, or nothing where the row is to be dropped."""
    columns = source.label if isinstance(source.label, list) else [source.label]
    unlabelled = [""] if source.labels is not None and "" in source.labels else []
    labels: list[Any] = []
    for number, cells in enumerate(zip(*(frame[column].tolist() for column in columns), strict=True), 1):
        at = f"{where}, row {number}"
        if isinstance(source.label, list):
            raw = flagged(list(cells), columns, at, source.access == "credentialed")
        elif source.label_separator is not None:
            raw = parts_of(cells[0], source.label_separator) or unlabelled
        else:
            raw = unlabelled if unlabelled and not plain(cells[0]) else [_one(cells[0], source, at)]
        found = raw if source.labels is None else _renamed(raw, source, at)
        several = isinstance(source.label, list) or source.label_separator is not None
        labels.append(found if several or found is None else found[0])
    return labels


def _one(cell: Any, source: Table | HubDataset, where: str) -> str:
    text = str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()
    if is_missing(cell) or text in ("", "nan"):
        raise DataError(f"{where}: the column '{source.label}' is empty")
    return text


def _renamed(raw: list[Any], source: Table | HubDataset, where: str) -> list[str] | None:
    assert source.labels is not None
    try:
        return rename(raw, source.labels)
    except UnnamedLabelError as error:
        shown = "a label" if source.access == "credentialed" else f"the label '{error}'"
        raise DataError(f"{where}: {shown} is not named in labels; allowed: {', '.join(source.labels)}") from None
