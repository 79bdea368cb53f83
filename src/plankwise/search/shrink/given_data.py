"""The user's files as a task for one fine-tuned model: the document beside its tables, and the recipe's `task`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from plankwise.core.errors import OutputError, RecipeError
from plankwise.core.files import contents, read_text, sha256
from plankwise.data.given.parts import AGREEMENT, HELD_BACK, SCORE, Measured
from plankwise.data.label_columns import label_column
from plankwise.data.metric_names import metrics_for
from plankwise.data.task import DEVELOPMENT, TRAIN
from plankwise.search.shrink.label_check import LabelCheck

DOCUMENT, FORMAT = "data.json", 3
PARTS = (TRAIN, *HELD_BACK)
SELECTION = "selection"  # rows of development on which trainings choose their weights
SELECTED = 500  # of them, at most: each step and each epoch of a training is scored on them in torch
TEXTS = "texts"  # every text of train, one in a row, to count words of
SEPARATOR = "|"  # makes a task multi-label; the tables hold lists, which nothing has to separate
TABLES = (*PARTS, SELECTION, TEXTS)
DEFAULT_METRICS = {SCORE: ("macro_f1", "accuracy"), AGREEMENT: ("accuracy", "macro_f1")}


class GivenData(pydantic.BaseModel):
    """The tables made of the user's files; the document beside them.

    Attributes:
        format: version of the document.
        title: name of the task in reports.
        labels: of the model, in the order of its logits.
        kind: of the model's answers, which says whether a row has one label, any number of them, or a score.
        pairs: whether rows have two texts.
        rows: number of rows of each part.
        labelled: of these, how many have a given label; the label of the others is the original's answer.
        measured: of development and of test, what a score on it says.
        distribution: of each part, the number of rows with each label.
        columns: of each file, which hold the text, the second text and the label, and what separates labels.
        check: of the given labels against the original's answers; None if there are none to measure with.
        said: what was guessed, found and left out, in lines to print.
        notes: what makes the measurement doubtful, in lines to print.
        made_of: settings, hashes of the input files and of the model.
        hashes: SHA-256 of the tables.
        folder: of the tables; not in the document.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    title: str
    labels: tuple[str, ...]
    kind: str
    pairs: bool
    rows: dict[str, int]
    labelled: dict[str, int]
    measured: dict[str, Measured]
    distribution: dict[str, dict[str, int]]
    columns: dict[str, dict[str, str | None]]
    check: LabelCheck | None
    said: tuple[str, ...]
    notes: tuple[str, ...]
    made_of: dict[str, Any]
    hashes: dict[str, str]
    folder: Path = pydantic.Field(default=Path(), exclude=True)

    def table(self, part: str) -> Path:
        """Return the path of a part's table: `id`, `text`, `text_pair` for pairs, `label` and `labelled`."""
        return table_of(self.folder, part)

    def task(self, metric: str | None = None) -> dict[str, Any]:
        """Return the settings `task` of a recipe on this data; `metric` and errors are those of `task_settings`."""
        return task_settings(
            self.folder,
            self.labels,
            kind=self.kind,
            pair=self.pairs,
            metric=metric,
            measured=self.measured[DEVELOPMENT],
            title=self.title,
        )


def table_of(folder: Path, part: str) -> Path:
    """Return the path of a part's table."""
    return folder / f"{part}.parquet"


def task_settings(
    folder: Path,
    model_labels: Sequence[str],
    *,
    kind: str = "single_label",
    pair: bool = False,
    metric: str | None = None,
    measured: Measured = SCORE,
    title: str | None = None,
) -> dict[str, Any]:
    """Return the settings `task` of a recipe that reads the tables in a folder.

    Its development split is the selection, which is enough to train by; a search decides on all of development.

    Args:
        folder: of the tables.
        model_labels: labels of the model, in the order of its logits; the task has all of them, in this order.
        kind: of the model's answers.
        pair: whether rows have two texts.
        metric: that decides; macro-F1 by default, and accuracy where scores are agreement with the original; of a model
            that scores the rank correlation.
        measured: what a score on development says.
        title: name of the task in reports.

    Raises:
        RecipeError: if there is no such metric, or a label of the model cannot be read from a table.
    """
    column = label_column(kind)
    unreadable = next((label for label in model_labels if not label.strip() or label != label.strip()), None)
    if unreadable is not None:
        raise RecipeError(f"the model's label '{unreadable}' begins or ends with a space, which tables lose; rename it")
    settings: dict[str, Any] = {
        "name": "table",
        **{part: str(table_of(folder.resolve(), part)) for part in PARTS},
        DEVELOPMENT: str(table_of(folder.resolve(), SELECTION)),
        "text": "text",
        "id": "id",
        "metrics": _metrics(metric, measured, column.scores),
        **({"score": "label"} if column.scores else {"label": "label", "classes": list(model_labels)}),
    }
    optional = {
        "text_pair": "text_pair" if pair else None,
        "label_separator": SEPARATOR if column.several else None,
        "title": title,
    }
    return {**settings, **{key: value for key, value in optional.items() if value is not None}}


def _metrics(first: str | None, measured: Measured, scores: bool) -> list[str]:
    """Return the metric that decides, and the usual ones after it."""
    usual = metrics_for((), scores=True) if scores else DEFAULT_METRICS[measured]
    try:
        return list(dict.fromkeys(metrics_for((*([] if first is None else [first]), *usual), scores)))
    except ValueError as error:
        raise RecipeError(str(error)) from None


def reused(folder: Path, made_of: Mapping[str, Any]) -> GivenData | None:
    """Return the data that a folder holds, if it was made of the same; nothing if the folder is empty or absent.

    Raises:
        OutputError: if the folder holds something else, or a table of it was changed.
    """
    present = contents(folder)
    if not present:
        return None
    if DOCUMENT not in present:
        raise OutputError(f"{folder} holds files that are not such data; choose an empty or a new folder")
    try:
        known = json.loads(read_text(folder / DOCUMENT))
        data = GivenData(**{**known, "folder": folder})
    except (OSError, ValueError, TypeError):
        raise OutputError(f"{folder / DOCUMENT} is damaged; remove {folder} to start again") from None
    if data.made_of != made_of:
        names = ", ".join(key for key in made_of if made_of[key] != data.made_of.get(key))
        raise OutputError(f"{folder} holds other data (it differs in {names}); choose another folder")
    for part in TABLES:
        path = data.table(part)
        if not path.is_file() or sha256(path) != data.hashes.get(part):
            raise OutputError(f"{path} is missing or was changed; remove {folder} to start again")
    return data
