"""The original model's answers for rows of text: labels for those that have none, and a check of those that have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from plankwise.core.errors import OutputError
from plankwise.core.files import write_json
from plankwise.core.paths import PARTIAL, remove
from plankwise.data.splitting import LabelledText
from plankwise.data.table_io import read_table
from plankwise.deploy.predictor import Predictor
from plankwise.deploy.tables.prediction import predict_table
from plankwise.deploy.tables.screening import FaultPolicy, InputColumns

MADE_OF, TEXTS, ANSWERS = "made_of.json", "texts.parquet", "answers.parquet"


def answers_of(
    predictor: Predictor, rows: Sequence[LabelledText], folder: Path, made_of: Mapping[str, Any], progress: bool = False
) -> list[list[Any]]:
    """Return the labels, or the score, that a model gives to each row; a killed call continues where it was.

    Args:
        predictor: of the model.
        rows: with `text` and `text_pair`.
        folder: to work in, which is emptied if it was made of something else; it holds the texts.
        made_of: what the rows and the model depend on, as JSON can hold it.
        progress: log an estimate of the time, and show a progress bar.

    Raises:
        ModelError: if the model cannot read these texts.
        OutputError: if the folder cannot be written to.
    """
    pairs = rows[0]["text_pair"] is not None
    source, out = folder / TEXTS, folder / ANSWERS
    try:
        _begin(folder, made_of)
        if not source.exists():
            write_rows(source, rows)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from None
    if not out.exists():
        columns = InputColumns("text", "text_pair" if pairs else None)
        predict_table(
            predictor, source, out, columns, policy=FaultPolicy(truncate=True), resume=True, progress=progress
        )
    column = next(iter(predictor.answer.column_types(predictor.labels)))
    return [list(cell) if isinstance(cell, list) else [cell] for cell in read_table(out, [column])[column]]


def working_folder(folder: Path) -> Path:
    """Return the hidden folder beside `folder` for the work that fills it."""
    return folder.with_name(f".{folder.name}.answers{PARTIAL}")


def write_rows(path: Path, rows: Sequence[LabelledText], **columns: pa.Array) -> None:
    """Write rows as Parquet, in one step: `id`, `text`, `text_pair` if they are pairs, and further columns.

    Raises:
        OSError: if it cannot be written.
    """
    text = pa.large_string()  # large: over 2 GB in all
    table = {"id": pa.array([row["id"] for row in rows]), "text": pa.array([row["text"] for row in rows], text)}
    if rows[0]["text_pair"] is not None:
        table["text_pair"] = pa.array([row["text_pair"] for row in rows], text)
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    pq.write_table(pa.table({**table, **columns}), temporary)
    temporary.replace(path)


def write_texts(path: Path, rows: Sequence[LabelledText]) -> None:
    """Write the texts of rows as Parquet, both texts of a pair in a row of their own."""
    texts = [text for row in rows for text in (row["text"], row["text_pair"]) if text is not None]
    pq.write_table(pa.table({"text": pa.array(texts, pa.large_string())}), path)


def _begin(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Make the folder, or empty one that was made of something else."""
    try:
        known = json.loads((folder / MADE_OF).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if known != made_of:
        remove(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds texts
    write_json(folder / MADE_OF, made_of)
