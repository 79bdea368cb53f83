"""Columns of scores: what is read as a number, what is refused, and the task that is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from plankwise.core.errors import DataError, PlankwiseError
from plankwise.core.recipe import validate
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN
from plankwise.data.tasks.scores import read_score
from plankwise.data.tasks.tables import TableFiles


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("3.5", 3.5), (" -2 ", -2.0), ("1e-3", 1e-3), (".5", 0.5), ("5.", 5.0), (4, 4.0), (0.25, 0.25), ("+1", 1.0)],
)
def test_numbers_are_read(cell: Any, expected: float) -> None:
    assert read_score(cell) == expected


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "is empty"),
        (None, "is empty"),
        (float("nan"), "is empty"),
        ("secret", "holds text that is not a number"),
        ("3,5", "holds '3,5', with a comma"),
        ("1_000", "holds text that is not a number"),
        ("inf", "holds text that is not a number"),
        ("1e999", "holds text that is not a number"),
        (float("inf"), "holds inf"),
        (True, "holds no number"),
        ([1.0], "holds no number"),
    ],
)
def test_what_is_no_number_is_refused_without_its_text(cell: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        read_score(cell)
    assert "secret" not in str(refused.value)


def table(folder: Path, scores: list[Any], **more: Any) -> TableFiles:
    path = folder / "pairs.jsonl"
    rows = tiny.rows(len(scores), 1)
    path.write_text(
        "".join(
            json.dumps({"a": row["text"], "b": f"{number} days", "similarity": score}) + "\n"
            for number, (row, score) in enumerate(zip(rows, scores, strict=True))
        )
    )
    return validate({"train": path, "text": "a", "text_pair": "b", "score": "similarity", **more}, TableFiles)


def test_a_task_with_a_score(tmp_path: Path) -> None:
    task = table(tmp_path, [number % 11 / 2 for number in range(200)]).load()
    assert (task.kind, task.labels, task.metrics) == ("regression", ("score",), ("spearman", "pearson"))
    assert {part: len(split) for part, split in task.splits.items()} == {TRAIN: 144, DEVELOPMENT: 16, TEST: 40}
    assert sorted({score for split in task.splits.values() for score in split["label"]}) == [n / 2 for n in range(11)]
    assert task.splits[TRAIN].features["label"].dtype == "float64"


def test_a_row_without_a_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3: the column 'similarity' holds text that is not a number; allowed: a"):
        table(tmp_path, [0.5, 1.0, "high", *[2.0] * 20]).load()


def test_scores_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the score '1\.0'"):
        table(tmp_path, [1.0] * 40).load()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"label": "verdict"}, "score and label are both given"),
        ({"classes": ["a", "b"]}, "score and classes are both given"),
        ({"label_separator": "|"}, "score and label_separator are both given"),
        (
            {"metrics": ["macro_f1"]},
            "the metric 'macro_f1' is for classes, and the task has a score; allowed: spear",
        ),
        ({"score": "a"}, "score names 'a', which holds a text"),
        ({"score": None, "metrics": ["pearson"]}, "the metric 'pearson' is for scores, and the task has classes"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(PlankwiseError, match=message):
        table(tmp_path, [0.5, 1.0], **more)
