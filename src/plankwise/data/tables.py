"""Any table, or any dataset of the `datasets` library, as a task: one text, or a pair; one label, or several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import datasets
import numpy as np
import pandas as pd
import pydantic

from plankwise.core.errors import DataError, suggest
from plankwise.core.recipe import settings
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN, Access, Row, Task, build_task

Share = Annotated[float, pydantic.Field(gt=0, lt=1)]
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
    id: str | None = None
    title: str | None = None
    metrics: Annotated[tuple[MetricName, ...], pydantic.Field(min_length=1)] = ("macro_f1", "accuracy")
    access: Access = "open"
    development_share: Share = 0.1
    test_share: Share = 0.2
    split_seed: int = 0

    def load(self) -> Task:
        """Read the files and check them."""
        given = {TRAIN: self.train, DEVELOPMENT: self.development, TEST: self.test}
        splits = {part: rows_of(read_table(path), self, str(path)) for part, path in given.items() if path is not None}
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
    title: str | None = None
    metrics: Annotated[tuple[MetricName, ...], pydantic.Field(min_length=1)] = ("macro_f1", "accuracy")
    access: Access = "open"
    development_share: Share = 0.1
    test_share: Share = 0.2
    split_seed: int = 0

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


def read_table(path: Path) -> pd.DataFrame:
    """Read a table with every cell as it stands; empty cells are empty strings.

    Raises:
        DataError: if the file is missing, of another kind, or malformed.
    """
    kind = path.suffix.lower()
    if kind not in READERS:
        raise DataError(f"{path}: no reader for '{kind}' files; allowed: {', '.join(READERS)}")
    try:
        if kind == ".parquet":
            return pd.read_parquet(path)
        if kind == ".jsonl":
            lines = path.read_text(encoding="utf-8-sig").split("\n")
            return pd.DataFrame([json.loads(line) for line in lines if line.strip()], dtype=object)
        separator = "," if kind == ".csv" else "\t"
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
    texts = _texts(frame[source.text], where)
    pairs = _texts(frame[source.text_pair], where) if source.text_pair else [None] * len(texts)
    ids = frame[identifier].tolist() if identifier else [str(number) for number in range(1, len(texts) + 1)]
    labels = _labels(frame, source, where)
    return [
        {"id": str(one), "text": text, "text_pair": pair, "label": label}
        for one, text, pair, label in zip(ids, texts, pairs, labels, strict=True)
    ]


def _texts(column: pd.Series[Any], where: str) -> list[str]:
    for number, value in enumerate(column, 1):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{where}, row {number}: the column '{column.name}' holds no text")
    return [str(value) for value in column]


def _labels(frame: pd.DataFrame, source: Table | HubDataset, where: str) -> list[Any]:
    if isinstance(source.label, list):
        return [
            _flagged(values, source.label, f"{where}, row {number}", source.access == "credentialed")
            for number, values in enumerate(frame[source.label].to_numpy().tolist(), 1)
        ]
    labels: list[Any] = []
    for number, value in enumerate(frame[source.label].tolist(), 1):
        if source.label_separator is not None:
            if isinstance(value, (list, np.ndarray)):
                parts = [str(part) for part in value]
            else:
                parts = [] if pd.isna(value) else str(value).split(source.label_separator)
            labels.append([part.strip() for part in parts if part.strip()])
            continue
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
        if value is None or text in ("", "nan"):
            raise DataError(f"{where}, row {number}: the column '{source.label}' is empty")
        labels.append(text)
    return labels


def _flagged(values: list[Any], names: list[str], where: str, secret: bool) -> list[str]:
    chosen = []
    for name, value in zip(names, values, strict=True):
        if str(value).strip().lower() not in ("0", "1", "0.0", "1.0", "true", "false"):
            shown = "something else" if secret else f"'{value}'"
            raise DataError(f"{where}: the column '{name}' holds {shown}; allowed: 0, 1, true, false")
        if str(value).strip().lower() in ("1", "1.0", "true"):
            chosen.append(name)
    return chosen
