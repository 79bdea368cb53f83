"""From a finished run to a review: the run's errors are drawn, and their texts are put into a database of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from plankwise.core.errors import DataError, OutputError
from plankwise.core.paths import check_folder
from plankwise.core.records import Record
from plankwise.data.task import TEST, Task
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.saved_predictions import read_predictions
from plankwise.evaluation.score_metrics import are_scores
from plankwise.report.run_report import finished
from plankwise.review.sample import MODELS, Drawn, draw_errors, reviewed_class
from plankwise.review.store import FILE, FOLDER, Item, ReviewStore
from plankwise.run.flips import task_of_run

logger = logging.getLogger(__name__)


def start_review(
    run: Path,
    out: Path | None = None,
    *,
    count: int = 100,
    class_name: str | None = None,
    error_classes: Sequence[str] = (),
    seed: int = 0,
) -> tuple[Path, Drawn]:
    """Draw the errors of a finished run, and write a review of them.

    Args:
        run: folder of the run.
        out: folder of the review; `review` in the run's by default.
        count: false positives, and false negatives, of each model.
        class_name: whose; the rarer one of two by default.
        error_classes: names to begin with; more are added while labelling.
        seed: of the sample.

    Returns:
        The folder of the review, and what was drawn.

    Raises:
        CheckpointError: if the run is not finished, or its data is gone or has changed.
        OutputError: if there is a review already, or a credentialed text would leave the run's folder.
        DataError: if there is no such class, or neither model errs.
    """
    record, folder = finished(run), out or run / FOLDER
    _check_place(run, folder, record)
    task = task_of_run(run, record)
    ids, pair = read_predictions(run)
    _check_answers(run, pair)
    index = reviewed_class(pair.labels, task.labels, class_name)
    drawn = draw_errors(pair, index, count, seed)
    if not drawn.errors:
        raise DataError(f"{run}: neither model errs on the class '{task.labels[index]}'; there is nothing to review")
    _log_counts(drawn, count)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    meta = {
        "title": f"{task.name}: {task.labels[index]}",
        "run": record.name,
        "class": task.labels[index],
        "seed": seed,
        "counts": drawn.counts,
        "access": record.task["access"],
    }
    ReviewStore.create(folder / FILE, _items(drawn, task, ids), list(dict.fromkeys(error_classes)), meta)
    return folder, drawn


def _check_place(run: Path, folder: Path, record: Record) -> None:
    """Refuse a folder that holds a review, or that credentialed text may not go to."""
    check_folder(folder)
    if record.task["access"] == "credentialed" and run.resolve() not in folder.resolve().parents:
        raise OutputError(f"{folder}: the task's access is credentialed, and its text stays in {run}; leave out --out")
    if (folder / FILE).exists():
        raise OutputError(f"{folder} holds a review already; label it with review serve, or choose another --out")


def _check_answers(run: Path, pair: Pair) -> None:
    """Refuse a run whose examples do not have exactly one label."""
    if are_scores(pair.labels):
        raise DataError(f"{run}: its examples have scores, which are near or far and not right or wrong")
    if pair.labels.ndim > 1:
        raise DataError(f"{run}: its examples have several labels each; allowed: a review of tasks with one label")


def _items(drawn: Drawn, task: Task, ids: Sequence[str]) -> list[Item]:
    split = task.splits[TEST]
    places = {each: place for place, each in enumerate(split["id"][:])}
    gold = np.asarray(split["label"][:])
    pairs = "text_pair" in split.column_names
    items = []
    for number, error in enumerate(drawn.errors, 1):
        place = places[ids[error.row]]
        items.append(
            Item(
                number=number,
                row_id=ids[error.row],
                text=split["text"][place],
                text_pair=split["text_pair"][place] if pairs else None,
                gold=task.labels[int(gold[place])],
                predicted=tuple(task.labels[each] for each in error.predicted),
                kind=error.kind,
                models=error.models,
            )
        )
    return items


def _log_counts(drawn: Drawn, count: int) -> None:
    for model in MODELS:
        for kind, (there, taken) in drawn.counts[model].items():
            if there < count:
                logger.warning("%s: %d %ss, fewer than %d; all are taken", model, there, kind, count)
            else:
                logger.info("%s: %d of %d %ss are drawn", model, taken, there, kind)
