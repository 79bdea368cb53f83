"""A task: named data with splits, labels, metrics and an access rule; every source of data passes the same checks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from datasets import Dataset, DatasetDict, Features, Value

from plankwise.core.errors import DataError, suggest
from plankwise.data.label_columns import LabelColumn, label_column
from plankwise.data.overlap import without_overlap
from plankwise.data.splitting import LabelledText as LabelledText
from plankwise.data.splitting import cut, labels_of

Kind = str  # the name of the objective that the task is for; open, because objectives are registered
Access = Literal["open", "credentialed"]
TRAIN, DEVELOPMENT, TEST = "train", "development", "test"
UNSEEN = "unseen in train"
SCORE = "score"  # the only output of a task without classes


@dataclass(frozen=True)
class Task:
    """A loaded task.

    Attributes:
        name: the task's name in reports.
        splits: `train`, `development`, `test`, each with `id`, `text`, `label` and, for pairs, `text_pair`. A label is
            an index into `labels`, for multi-label tasks a list of 0.0 and 1.0, for regression a number. A corpus to
            train a language model on has neither labels nor a test split.
        labels: names of the classes, in the order of the model's logits; of regression the name of its only output.
        kind: name of the objective: `single_label`, `multi_label`, `regression`, `masked_lm` and others that are
            registered.
        metrics: names of metrics; the first selects checkpoints.
        access: `credentialed` text never leaves the machine: no report, record, log or message holds any.
        hashes: of each split's content.
    """

    name: str
    splits: DatasetDict
    labels: tuple[str, ...]
    kind: Kind
    metrics: tuple[str, ...]
    access: Access
    hashes: Mapping[str, str]

    @property
    def has_labels(self) -> bool:
        """Whether its splits have a column `label`."""
        return "label" in self.splits[TRAIN].column_names

    def without_test(self) -> Task:
        """Return the same task without its test split, for everything that trains, calibrates or searches."""
        kept = DatasetDict({name: split for name, split in self.splits.items() if name != TEST})
        return dataclasses.replace(self, splits=kept)


class TaskSource(Protocol):
    """Settings that know how to load one task."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the tasks that it may load; which of them, only the data can say."""
        ...

    def load(self) -> Task:
        """Read and check the data, and cut the splits that are not given off train."""
        ...


def build_task(
    name: str,
    splits: Mapping[str, list[LabelledText]],
    metrics: tuple[str, ...],
    kind: Kind = "single_label",
    *,
    classes: Sequence[str] | None = None,
    access: Access = "open",
    development_share: float = 0.1,
    test_share: float = 0.2,
    split_seed: int = 0,
    deduplicate: bool = False,
) -> Task:
    """Make a task of labelled texts; cut a missing test split, then a missing development split, off train.

    Cuts are stratified by label and seeded.

    Args:
        name: of the task.
        splits: rows of `train` and, where they are given, `development` and `test`.
        metrics: names of metrics; the first selects checkpoints.
        kind: how many labels a text has, a key of `label_columns.LABEL_COLUMNS`.
        classes: all labels, in the order of the model's logits, also those that no row has; those of train, sorted, by
            default.
        access: `credentialed` keeps labels out of messages.
        development_share: share of train to cut off.
        test_share: share of train to cut off, first.
        split_seed: seed of both cuts.
        deduplicate: drop texts that are in two splits from the earlier one; otherwise they are only counted.

    Raises:
        DataError: if a split is empty or has one class only, or a label never occurs in train, or is not in `classes`.
    """
    column, parts, secret = label_column(kind), dict(splits), access == "credentialed"
    if TEST not in parts:
        parts[TRAIN], parts[TEST] = cut(parts[TRAIN], test_share, split_seed, f"{name}: test", secret)
    if DEVELOPMENT not in parts:
        what = f"{name}: development"
        parts[TRAIN], parts[DEVELOPMENT] = cut(parts[TRAIN], development_share, split_seed, what, secret)
    parts = without_overlap(name, parts, deduplicate)
    for part, rows in parts.items():
        _check_variety(rows, column, f"{name}: the {part} split", access)
    labels = (SCORE,) if column.scores else _labels(name, parts, classes, access)
    datasets = {part: _as_dataset(parts[part], labels, column) for part in (TRAIN, DEVELOPMENT, TEST)}
    hashes = {part: _hash(parts[part]) for part in datasets}
    return Task(name, DatasetDict(datasets), labels, kind, metrics, access, hashes)


def _labels(
    name: str, parts: Mapping[str, Sequence[LabelledText]], classes: Sequence[str] | None, access: Access
) -> tuple[str, ...]:
    """Return the labels of a task, and refuse rows that have others."""
    labels = tuple(classes or sorted({each for row in parts[TRAIN] for each in labels_of(row)}))
    for part in (TRAIN, DEVELOPMENT, TEST):
        _check_known(parts[part], labels, f"{name}: the {part} split", access, "not in classes" if classes else UNSEEN)
    return labels


def _check_variety(rows: Sequence[LabelledText], column: LabelColumn, what: str, access: Access) -> None:
    if not rows:
        raise DataError(f"{what} is empty")
    seen = {"|".join(map(str, labels_of(row))) for row in rows}
    if len(seen) < 2:
        named = not column.several and access == "open"
        what_alone = "score" if column.scores else "label"
        shown = f"the {what_alone} '{seen.pop()}'" if named else "one label or combination of labels"
        raise DataError(f"{what} holds only {shown} in its {len(rows)} rows; at least two are needed")


def _check_known(rows: Sequence[LabelledText], labels: Sequence[str], what: str, access: Access, fault: str) -> None:
    for row in rows:
        for label in labels_of(row):
            if label not in labels and access == "credentialed":
                raise DataError(f"{what}, row {row['id']}: its label is {fault}")
            if label not in labels:
                raise DataError(f"{what}, row {row['id']}: the label '{label}' is {fault}; {suggest(label, labels)}")


def _as_dataset(rows: Sequence[LabelledText], labels: Sequence[str], column: LabelColumn) -> Dataset:
    index = {label: position for position, label in enumerate(labels)}
    columns: dict[str, list[Any]] = {"id": [str(row["id"]) for row in rows], "text": [row["text"] for row in rows]}
    features: dict[str, Any] = {"id": Value("string"), "text": Value("large_string")}  # large: over 2 GB in all
    if rows[0].get("text_pair") is not None:
        columns["text_pair"] = [row["text_pair"] for row in rows]
        features["text_pair"] = Value("large_string")
    columns["label"] = [column.store(row["label"], index) for row in rows]
    features["label"] = column.feature
    return Dataset.from_dict(columns, features=Features(features))


def _hash(rows: Sequence[LabelledText]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([str(row["id"]), row["text"], row.get("text_pair"), row["label"]]).encode())
    return digest.hexdigest()
