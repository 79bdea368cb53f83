"""Tables, and datasets of the `datasets` library, as tasks: single texts or pairs, with one label or several."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import datasets
import pydantic

from plankwise.core.errors import DataError
from plankwise.core.hub import absent, datasets_offline
from plankwise.core.numbers import Seed, Share
from plankwise.core.recipe import settings
from plankwise.data.metric_names import MetricName, metrics_for
from plankwise.data.table_io import check_columns as check_columns_there
from plankwise.data.table_io import read_table
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN, Access, LabelledText, Task, build_task
from plankwise.data.tasks.labels import ClassNames, LabelNames, check_columns, is_missing, plain
from plankwise.data.tasks.rows import rows_of
from plankwise.data.text_files import EncodingName, TextFormat, unpacked

logger = logging.getLogger(__name__)
Delimiter = Literal[",", ";", "|", "\t"]


CLASSIFICATION, REGRESSION = ("single_label", "multi_label"), ("regression",)


def _some_files(given: Any) -> Any:
    several = isinstance(given, (list, tuple))
    files = given if several else [given]
    if not files or not all(isinstance(each, (str, Path)) and str(each) for each in files):
        raise ValueError("allowed: a file, or a list of files")
    return tuple(map(Path, files)) if several else Path(given)


def _plain_files(files: Any) -> Any:
    return str(files) if isinstance(files, (str, Path)) else list(map(str, files))


Files = Annotated[
    Path | tuple[Path, ...],
    pydantic.PlainValidator(_some_files, json_schema_input_type=str | list[str]),
    pydantic.PlainSerializer(_plain_files),
]


@settings
class TableFiles:
    """A task in table files: CSV, TSV, JSON lines or Parquet, compressed or not, recognized by their suffixes.

    A split may be several files, which are joined in their order.

    Attributes:
        train: file or files to train on.
        development: files to select checkpoints on; cut off train if not given.
        test: files to report on; cut off train if not given.
        text: column of the text.
        text_pair: column of a second text, for pair tasks.
        label: column of the label; a list of columns holding 0 and 1 makes a multi-label task.
        score: column of a number that the model is to come near to, in the place of labels: a regression task.
        label_separator: splits the one label column into several labels and makes a multi-label task.
        labels: names of the raw labels, such as `{1: hate, 0: none}`; several may share a name, and null drops the
            rows of a label. With a list of columns it renames these. A raw label without a name is refused.
        classes: all labels of the task in the order of the model's outputs, also those that no row has; by default
            those of train, sorted.
        delimiter: between the cells of CSV files.
        encoding: of text files, such as cp1252 or utf-16; UTF-8 by default.
        id: column of an identifier; row numbers by default. In a split of several files the name of the file comes
            before it, as in `first.csv/17`.
        title: name of the task in reports; that of the first train file by default.
        metrics: the first selects checkpoints; by default macro_f1 and accuracy, of a score spearman and pearson.
        access: `credentialed` keeps all text out of records, reports, logs and messages.
        development_share: share cut off train if no development file is given.
        test_share: share cut off train if no test file is given.
        split_seed: seed of these cuts.
        deduplicate: drop rows of train whose text is also in development or test, and rows of development whose text
            is also in test, ignoring case and white space.
    """

    name: Literal["table"] = "table"
    train: Files
    development: Files | None = None
    test: Files | None = None
    text: str = "text"
    text_pair: str | None = None
    label: str | list[str] = "label"
    score: str | None = None
    label_separator: Annotated[str, pydantic.Field(min_length=1)] | None = None
    labels: LabelNames | None = None
    classes: ClassNames | None = None
    delimiter: Delimiter | None = None
    encoding: EncodingName | None = None
    id: str | None = None
    title: str | None = None
    metrics: Annotated[tuple[MetricName, ...], pydantic.Field(min_length=1)] | None = None
    access: Access = "open"
    development_share: Share = 0.1
    test_share: Share = 0.2
    split_seed: Seed = 0
    deduplicate: bool = False

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> TableFiles:
        form = TextFormat(self.encoding, self.delimiter)
        files = [path for given in (self.train, self.development, self.test) for path in _paths(given)]
        for fault in filter(None, map(form.fault, files)):
            raise ValueError(fault)
        check_columns(self.label, self.labels, {"text": self.text, "text_pair": self.text_pair, "id": self.id})
        _check_score(self)
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the tasks that it may load."""
        return CLASSIFICATION if self.score is None else REGRESSION

    def load(self) -> Task:
        """Read the files and check them."""
        given = {TRAIN: self.train, DEVELOPMENT: self.development, TEST: self.test}
        splits = {part: self._rows(_paths(files)) for part, files in given.items() if files is not None}
        return _build(self, splits, self.title or unpacked(_paths(self.train)[0]).stem)

    def _rows(self, files: Sequence[Path]) -> list[LabelledText]:
        form, columns = TextFormat(self.encoding, self.delimiter), _columns_of(self)
        declared = set(map(plain, self.classes or ()))
        joined: list[LabelledText] = []
        for path in files:
            rows = rows_of(read_table(path, columns, form), self, str(path), declared=declared, identifier=self.id)
            joined += rows if len(files) == 1 else [{**row, "id": f"{path.name}/{row['id']}"} for row in rows]
        return joined


def _paths(files: Path | Sequence[Path] | None) -> list[Path]:
    if files is None:
        return []
    return [files] if isinstance(files, Path) else list(files)


@settings
class HubDataset:
    """A task of the `datasets` library: a Hub id or a local dataset folder. Other attributes as for `TableFiles`.

    Attributes:
        id: Hub id or folder.
        configuration: the dataset's configuration, such as `sst2` of `glue`.
        train: name of the split to train on.
        development: name of the split to select checkpoints on; cut off train if not given.
        test: name of the split to report on; cut off train if not given.
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
    score: str | None = None
    label_separator: Annotated[str, pydantic.Field(min_length=1)] | None = None
    labels: LabelNames | None = None
    classes: ClassNames | None = None
    title: str | None = None
    metrics: Annotated[tuple[MetricName, ...], pydantic.Field(min_length=1)] | None = None
    access: Access = "open"
    development_share: Share = 0.1
    test_share: Share = 0.2
    split_seed: Seed = 0
    deduplicate: bool = False

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> HubDataset:
        check_columns(self.label, self.labels, {"text": self.text, "text_pair": self.text_pair})
        _check_score(self)
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the tasks that it may load."""
        return CLASSIFICATION if self.score is None else REGRESSION

    def load(self) -> Task:
        """Load the splits and check them."""
        given = {TRAIN: self.train, DEVELOPMENT: self.development, TEST: self.test}
        splits = {part: self._rows(split) for part, split in given.items() if split is not None}
        return _build(self, splits, self.title or self.id)

    def _rows(self, split: str) -> list[LabelledText]:
        where = f"{self.id}[{split}]"
        try:
            with datasets_offline():
                data = datasets.load_dataset(self.id, self.configuration, split=split)
        except Exception as error:  # the library raises many kinds, most of them its own
            if isinstance(error, (ConnectionError, FileNotFoundError)) and not Path(self.id).exists():
                raise DataError(f"cannot load the dataset {where}: {absent(self.id)}") from None
            lines = str(error).splitlines()
            raise DataError(f"cannot load the dataset {where}: {lines[0] if lines else error!r}") from None
        columns = _columns_of(self)
        check_columns_there(where, columns, data.column_names)
        table = {column: data[column][:] for column in columns}
        declared = set(map(plain, self.classes or ()))
        for column in columns:
            feature = data.features[column]
            if isinstance(feature, datasets.ClassLabel):
                table[column] = [_class_name(feature, value) for value in table[column]]
                declared.update(map(plain, feature.names))
        return rows_of(table, self, where, declared=declared)


def _class_name(feature: Any, value: Any) -> str | None:
    return None if is_missing(value) or value < 0 else feature.int2str(int(value))


def _check_score(source: TableFiles | HubDataset) -> None:
    """Refuse settings of labels beside a score, and metrics of the other kind of task."""
    if source.score is not None:
        given = {
            "label": source.label != "label",
            "label_separator": source.label_separator is not None,
            "labels": source.labels is not None,
            "classes": source.classes is not None,
        }
        stray = next((name for name, is_given in given.items() if is_given), None)
        if stray is not None:
            raise ValueError(f"score and {stray} are both given; allowed: a score, or labels")
        if source.score in (source.text, source.text_pair):
            raise ValueError(f"score names '{source.score}', which holds a text; allowed: a column of numbers")
    metrics_for(source.metrics, source.score is not None)


def _build(source: TableFiles | HubDataset, splits: Mapping[str, list[LabelledText]], title: str) -> Task:
    several = source.label_separator is not None or isinstance(source.label, list)
    return build_task(
        title,
        splits,
        metrics_for(source.metrics, source.score is not None),
        kind="regression" if source.score is not None else "multi_label" if several else "single_label",
        classes=source.classes,
        access=source.access,
        development_share=source.development_share,
        test_share=source.test_share,
        split_seed=source.split_seed,
        deduplicate=source.deduplicate,
    )


def _columns_of(source: TableFiles | HubDataset) -> list[str]:
    labels = source.label if isinstance(source.label, list) else [source.score or source.label]
    identifier = source.id if isinstance(source, TableFiles) else None
    return [source.text, *labels, *filter(None, (source.text_pair, identifier))]
