"""From the user's files to a task for one fine-tuned model: rows, parts, the original's answers, and tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from plankwise.core.errors import DataError
from plankwise.core.files import atomic_folder, sha256, write_json
from plankwise.core.paths import check_folder, remove
from plankwise.data.given.columns import ColumnOptions
from plankwise.data.given.parts import HELD_BACK, MAX_ROWS, SCORE, GivenParts, check_classes, joined, split_given
from plankwise.data.given.rows import GivenRows, read_given
from plankwise.data.label_columns import label_column
from plankwise.data.splitting import LabelledText, labels_of
from plankwise.data.task import DEVELOPMENT, TRAIN
from plankwise.data.text_files import TextFormat, readable, unpacked
from plankwise.data.truncation import Truncation
from plankwise.deploy.answers import ANSWERS, kind_of
from plankwise.deploy.predictor import Predictor
from plankwise.deploy.tables.prediction import source_hash
from plankwise.encoder import classifier_head
from plankwise.encoder.checkpoint import load_config
from plankwise.search.shrink.given_data import (
    DOCUMENT,
    PARTS,
    SELECTED,
    SELECTION,
    TABLES,
    TEXTS,
    GivenData,
    reused,
    table_of,
    task_settings,
)
from plankwise.search.shrink.label_check import LabelCheck, compare_labels, doubts
from plankwise.search.shrink.teacher_labels import answers_of, working_folder, write_rows, write_texts

CHECKED = 500  # labelled rows, at most, whose labels are compared with the original's answers


@dataclass(frozen=True)
class GivenFiles:
    """What the user gives.

    Attributes:
        data: CSV, TSV, JSON lines, Parquet or .txt, plain or compressed, with or without labels.
        test: files that are the test part; cut off the others if there are none.
        options: columns that are given; others are guessed.
        names: from raw labels to labels of the model, where these differ.
        form: encoding of text files and delimiter of CSV.
    """

    data: tuple[Path, ...]
    test: tuple[Path, ...] = ()
    options: ColumnOptions = field(default_factory=ColumnOptions)
    names: Mapping[str, str] = field(default_factory=dict)
    form: TextFormat = field(default_factory=TextFormat)

    def identity(self) -> dict[str, Any]:
        """Return the hashes of the files, and all settings.

        Raises:
            DataError: if a file cannot be read.
        """
        hashes = {"data": _hashes(self.data), "test": _hashes(self.test)}
        return {**hashes, **asdict(self.options), **asdict(self.form), "names": dict(self.names)}

    def read(self, labels: Sequence[str], kind: str) -> GivenRows:
        """Read all files, those of test as well, for a model with these labels; errors are those of `read_given`."""
        return read_given(
            [*self.data, *self.test],
            model_labels=labels,
            kind=kind,
            options=self.options,
            names=self.names,
            form=self.form,
        )


@dataclass(frozen=True)
class Origin:
    """Where the rows come from.

    Attributes:
        title: name of the task in reports.
        kind: of the model's answers.
        given: rows of all files, with what was guessed.
        has_test: whether files for test are given.
        made_of: settings and hashes that the data depends on, as JSON can hold them.
    """

    title: str
    kind: str
    given: GivenRows
    has_test: bool
    made_of: Mapping[str, Any]


def prepare_given(
    model: str,
    files: GivenFiles,
    folder: Path,
    *,
    truncation: Truncation | None = None,
    seed: int = 0,
    max_rows: Mapping[str, int] = MAX_ROWS,
    progress: bool = False,
) -> GivenData:
    """Make a task for a fine-tuned model of the user's files, and write it as tables with a document.

    A folder that holds the same data already is reused; a call that was killed continues.

    Args:
        model: folder or Hub id of a fine-tuned classifier or regressor.
        files: of the user.
        folder: to write to; readable by its owner alone, because it holds texts.
        truncation: how much of a text the original sees; its own by default.
        seed: of the cuts.
        max_rows: of each part.
        progress: log an estimate of the time, and show a progress bar.

    Raises:
        ModelError: if the model neither classifies texts nor scores them, or cannot read these.
        DataError: if the files cannot be read as a task for it, or too few rows can be held back.
        OutputError: if the folder cannot be written to, or holds something else.
    """
    check_folder(folder)
    config = load_config(model)
    kind = kind_of(config)
    ANSWERS[kind].check_model(config, model)
    labels = classifier_head.labels_of(config)
    task_settings(folder, labels, kind=kind)  # only to refuse labels that no table can hold
    how = {"truncation": None if truncation is None else asdict(truncation), "seed": seed, "max_rows": dict(max_rows)}
    made_of = json.loads(json.dumps({"model": source_hash(model), **files.identity(), **how}))
    known = reused(folder, made_of)
    if known is not None:
        return known
    given = files.read(labels, kind)
    test = given.only(files.test) if files.test else None
    parts = split_given(given.only(files.data), test, seed=seed, max_rows=max_rows)
    origin = Origin(unpacked(files.data[0]).stem, kind, given, test is not None, made_of)
    return with_teacher_labels(parts, origin, Predictor(model, truncation=truncation), folder, progress=progress)


def with_teacher_labels(
    parts: GivenParts, origin: Origin, predictor: Predictor, folder: Path, *, progress: bool = False
) -> GivenData:
    """Label the unlabelled rows by the original's own answers, and write all parts as tables.

    A score on such rows is agreement with the original, and every method runs on them unchanged. Of the labelled rows
    it answers a few, to see whether labels and model belong together.

    Args:
        parts: rows of each part.
        origin: of the rows.
        predictor: of the original.
        folder: to write to, in one step; the predictions are kept beside it until then.
        progress: log an estimate of the time, and show a progress bar.

    Raises:
        DataError: if a part shows one class only.
        ModelError: if the original cannot read these texts.
        OutputError: if the folder cannot be written to.
    """
    checked = _checked_rows(parts)
    rows = [*(row for part in PARTS for row in parts.rows[part] if row["label"] is None), *checked]
    work = working_folder(folder)
    answers = dict(
        zip((row["id"] for row in rows), answers_of(predictor, rows, work, origin.made_of, progress), strict=True)
    )
    column = label_column(origin.kind)
    labelled = {part: _labelled(parts.rows[part], answers, column.several) for part in PARTS}
    try:
        for part, measured in {**parts.measured, TRAIN: parts.measured[DEVELOPMENT]}.items():
            check_classes([joined(row) for row in labelled[part]], part, measured)
    except DataError:
        remove(work)  # it holds texts, and other rows are needed anyway
        raise
    cell = pa.float64() if column.scores else pa.list_(pa.string()) if column.several else pa.string()
    with atomic_folder(folder, private=True) as temporary:
        for part in PARTS:
            given = pa.array([row["label"] is not None for row in parts.rows[part]])
            labels = pa.array([row["label"] for row in labelled[part]], cell)
            write_rows(table_of(temporary, part), labelled[part], label=labels, labelled=given)
            if part == DEVELOPMENT:
                few = {"label": labels[:SELECTED], "labelled": given[:SELECTED]}
                write_rows(table_of(temporary, SELECTION), labelled[part][:SELECTED], **few)
        write_texts(table_of(temporary, TEXTS), parts.texts)
        hashes = {part: sha256(table_of(temporary, part)) for part in TABLES}
        check = compare_labels(checked, answers, column.scores)
        data = _document(parts, origin, labelled, check, labels=predictor.labels, hashes=hashes)
        write_json(temporary / DOCUMENT, data.model_dump(mode="json"))
    remove(work)
    return data.model_copy(update={"folder": folder})


def _document(
    parts: GivenParts,
    origin: Origin,
    labelled: Mapping[str, Sequence[LabelledText]],
    check: LabelCheck | None,
    *,
    labels: tuple[str, ...],
    hashes: dict[str, str],
) -> GivenData:
    return GivenData(
        title=origin.title,
        labels=labels,
        kind=origin.kind,
        pairs=origin.given.pairs,
        rows={part: len(parts.rows[part]) for part in PARTS},
        labelled={part: sum(row["label"] is not None for row in parts.rows[part]) for part in PARTS},
        measured=dict(parts.measured),
        distribution={}
        if label_column(origin.kind).scores
        else {part: _distribution(labelled[part], labels) for part in PARTS},
        columns={str(path): columns.named() for path, columns in origin.given.columns.items()},
        check=check,
        said=(*origin.given.said, *parts.said),
        notes=doubts(check, origin.has_test),
        made_of=dict(origin.made_of),
        hashes=hashes,
    )


def _hashes(files: Sequence[Path]) -> list[list[str]]:
    """Return name and SHA-256 of each file."""
    found = []
    for path in files:
        with readable(path):
            found.append([path.name, sha256(path)])
    return found


def _labelled(rows: Sequence[LabelledText], answers: Mapping[str, list[Any]], several: bool) -> list[LabelledText]:
    """Return rows with the original's answer as the label of those that have none."""
    own: dict[str, Any] = {key: answer if several else answer[0] for key, answer in answers.items()}
    return [row if row["label"] is not None else {**row, "label": own[row["id"]]} for row in rows]


def _distribution(rows: Sequence[LabelledText], labels: Sequence[str]) -> dict[str, int]:
    counts = Counter(label for row in rows for label in labels_of(row))
    return {label: counts[label] for label in labels}


def _checked_rows(parts: GivenParts) -> list[LabelledText]:
    """Return some of the labelled rows that measure, to compare the original's answers with."""
    part = next((part for part in reversed(HELD_BACK) if parts.measured[part] == SCORE), None)
    return [] if part is None else list(parts.rows[part][:CHECKED])
