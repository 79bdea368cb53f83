"""Comparing the two models of finished runs, several seeds of a recipe pooled, by the logits that runs have saved."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.errors import CheckpointError, PlankwiseError
from plankwise.core.recipe import validate
from plankwise.core.records import FILE_NAME, Record
from plankwise.data.task import TEST, TRAIN
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.evidence import Examples, Question, compare_pairs
from plankwise.evaluation.saved_predictions import read_predictions
from plankwise.evaluation.score_metrics import are_scores
from plankwise.evaluation.slices import CLASS, SCORE, classes_of, quartiles
from plankwise.report.run_report import finished
from plankwise.run.compare.models import ComparedOn, examples_of
from plankwise.run.compare.rows import rows_of_split
from plankwise.run.recipe import Recipe

logger = logging.getLogger(__name__)


def is_run(folder: str) -> bool:
    """Return whether a path is the folder of a run, and not of a model."""
    return (Path(folder) / FILE_NAME).is_file()


def compare_runs(runs: Sequence[Path], question: Question) -> dict[str, Any]:
    """Compare the last model of each recipe's runs with its baseline; runs that differ in the seed alone are pooled.

    The task is loaded again for floors and slices. Where its data is gone, the comparison goes without, and says so.

    Args:
        runs: folders of finished runs of one task.
        question: what is asked.

    Returns:
        The document of `compare_models`, with a comparison for each recipe by its name.

    Raises:
        CheckpointError: if a run is not finished, is named twice, or is of another task than the first.
    """
    folders = [run.resolve() for run in runs]
    twice = next((run for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1), None)
    if twice is not None:
        raise CheckpointError(f"the run {twice} is named twice; it would count as two seeds")
    records = {run: finished(run) for run in runs}
    for run, record in records.items():
        _check_same_task(run, record, runs[0], records[runs[0]])
    predictions = {run: read_predictions(run) for run in runs}
    ids = predictions[runs[0]][0]
    pairs = {run: in_order(run, found, ids) for run, found in predictions.items()}
    examples = _examples(records[runs[0]], pairs[runs[0]], ids)
    groups: dict[str, list[Pair]] = {}
    for run, record in records.items():
        groups.setdefault(record.name, []).append(pairs[run])
    return {
        "baseline": "baseline",
        "rows": len(ids),
        "classes": list(examples.classes),
        "metrics": list(question.about(pairs[runs[0]].labels).metrics),
        "comparisons": {name: compare_pairs(group, examples, question) for name, group in groups.items()},
    }


def in_order(run: Path, found: tuple[list[str], Pair], ids: Sequence[str]) -> Pair:
    """Put the saved logits of a run into the order of the ids.

    Raises:
        CheckpointError: if it was tested on other examples.
    """
    own, pair = found
    if own == list(ids):
        return pair
    places = {each: place for place, each in enumerate(own)}
    if len(places) < len(own) or set(places) != set(ids):
        raise CheckpointError(f"{run} was tested on other examples than the first run")
    order = np.array([places[each] for each in ids])
    return Pair(pair.labels[order], pair.baseline[order], pair.compressed[order])


def _check_same_task(run: Path, record: Record, first_run: Path, first: Record) -> None:
    for key in ("name", "labels", "kind"):
        if record.task[key] != first.task[key]:
            raise CheckpointError(
                f"{run} is of another task than {first_run}: its {key} is {record.task[key]}, not {first.task[key]}"
            )
    if record.data_hashes.get(TEST) != first.data_hashes.get(TEST):
        raise CheckpointError(f"{run} was tested on other data than {first_run}")


def _examples(record: Record, pair: Pair, ids: Sequence[str]) -> Examples:
    """Load the task of a run for floors and slices; without its data there are slices by class alone."""
    classes = tuple(record.task["labels"])
    try:
        task = validate(record.recipe, Recipe).task.load()
        if dict(task.hashes) != record.data_hashes or list(task.splits[TEST]["id"][:]) != list(ids):
            raise CheckpointError("its data has changed")
        rows, train = (rows_of_split(task, split, classes) for split in (TEST, TRAIN))
        return examples_of(ComparedOn(rows, None, train), classes)
    except PlankwiseError as error:
        logger.warning("without floors and slices by text, as the task cannot be loaded: %s", error)
        if are_scores(pair.labels):
            return Examples(classes=(), slices={SCORE: quartiles(pair.labels, "")})
        return Examples(classes=classes, slices={CLASS: classes_of(pair.labels, classes)})
