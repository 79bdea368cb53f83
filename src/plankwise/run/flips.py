"""Answers that compression changed, with their texts: what a reader of a report wants to see, of open tasks alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.errors import CheckpointError, DataError, PlankwiseError
from plankwise.core.recipe import validate
from plankwise.core.records import Record
from plankwise.data.task import TEST, Task
from plankwise.evaluation.metrics import Array, decide
from plankwise.evaluation.saved_predictions import read_predictions
from plankwise.evaluation.score_metrics import are_scores
from plankwise.report.run_report import finished
from plankwise.report.run_sections import Flip, Flips
from plankwise.run.recipe import Recipe

SHOWN = 20  # of each direction


def task_of_run(run: Path, record: Record) -> Task:
    """Load the task of a run again.

    Raises:
        CheckpointError: if its data is gone, or its test split has changed.
    """
    try:
        task = validate(record.recipe, Recipe).task.load()
    except PlankwiseError as error:
        raise CheckpointError(f"the data of the run in {run} cannot be read: {error}") from None
    if task.hashes[TEST] != record.data_hashes[TEST]:
        raise CheckpointError(f"the test data of the run in {run} has changed since; its errors cannot be shown")
    return task


def flips_of(run: Path, *, shown: int = SHOWN, seed: int = 0) -> Flips:
    """Draw some of the test texts whose answer became wrong, and of those whose answer became right.

    Args:
        run: folder of a finished run.
        shown: of each, at most.
        seed: of the sample.

    Raises:
        CheckpointError: if the run is not finished, or its data is gone or has changed.
        DataError: if its task is credentialed, so that no page may hold its texts, or has several labels a text.
    """
    record = finished(run)
    if record.task["access"] != "open":
        raise DataError(f"{run}: the task's access is {record.task['access']}; no page may hold its texts")
    ids, pair = read_predictions(run)
    if are_scores(pair.labels):
        raise DataError(f"{run}: its examples have scores, which are near or far and not right or wrong")
    if pair.labels.ndim > 1:
        raise DataError(f"{run}: its examples have several labels each; allowed: flips of tasks with one label")
    task = task_of_run(run, record)
    answers = decide(pair.baseline), decide(pair.compressed)
    right, now_right = (each == pair.labels for each in answers)
    split = task.splits[TEST]
    places = {each: place for place, each in enumerate(split["id"][:])}
    order = np.random.default_rng(seed).permutation(len(ids))

    def drawn(flipped: Array) -> list[Flip]:
        rows = [int(row) for row in order if flipped[row]][:shown]
        names = [[task.labels[int(each[row])] for each in (pair.labels, *answers)] for row in rows]
        texts = [split[places[ids[row]]] for row in rows]
        return [Flip(_text_of(row), *labels) for row, labels in zip(texts, names, strict=True)]

    lost, won = right & ~now_right, now_right & ~right
    return Flips(record.name, drawn(lost), int(lost.sum()), drawn(won), int(won.sum()))


def _text_of(row: Mapping[str, Any]) -> str:
    pair = row.get("text_pair")
    return str(row["text"]) if pair is None else f"{row['text']} ‖ {pair}"
