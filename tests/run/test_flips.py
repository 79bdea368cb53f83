"""Texts whose answers changed: those of the run's test split, and of open tasks alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from finished_run import write_run
from plankwise.core.errors import CheckpointError, DataError
from plankwise.core.recipe import to_plain, validate
from plankwise.data.task import TEST
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.saved_predictions import PREDICTIONS, save_predictions
from plankwise.run.flips import flips_of
from plankwise.run.recipe import Recipe


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of a tiny table whose baseline errs on the first two test rows and its compressed model on rows 2 to 6."""
    plain = {
        "name": "tiny",
        "task": {"name": "table", "train": str(tiny.write_table(tmp_path, 200))},
        "model": {"source": "none"},
    }
    recipe = validate(plain, Recipe)
    task = recipe.task.load()
    labels = np.array(task.splits[TEST]["label"][:])
    right, wrong, rows = np.eye(2)[labels], np.eye(2)[1 - labels], np.arange(len(labels))[:, None]
    pair = Pair(labels, np.where(rows < 2, wrong, right), np.where((rows >= 1) & (rows < 7), wrong, right))
    folder = write_run(tmp_path / "run")
    save_predictions(folder / PREDICTIONS, task.splits[TEST]["id"][:], pair)
    record = json.loads((folder / "record.json").read_text())
    record["task"] |= {"access": "open", "labels": list(task.labels)}
    record |= {"recipe": to_plain(recipe), "data_hashes": dict(task.hashes)}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_flips_are_what_the_predictions_say(run: Path) -> None:
    task = validate(json.loads((run / "record.json").read_text())["recipe"], Recipe).task.load()
    texts = task.splits[TEST]["text"][:]
    found = flips_of(run)
    assert (found.lost_in_all, found.won_in_all) == (5, 1)
    assert {each.text for each in found.lost} == set(texts[2:7])
    (won,) = found.won
    assert won.text == texts[0]
    assert won.compressed == won.gold != won.baseline
    few = flips_of(run, shown=2)
    assert (len(few.lost), few.lost_in_all) == (2, 5)
    assert [each.text for each in few.lost] == [each.text for each in found.lost[:2]]


def test_the_page_shows_them_where_it_is_asked_to(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = flips_of(run).won[0].text
    for options, shown in (((), False), (("--with-texts",), True)):
        assert tiny.call(monkeypatch, "report", run, "--out", run / "page.html", *options) == 0
        assert (text in (run / "page.html").read_text()) == shown
    capsys.readouterr()
    assert tiny.call(monkeypatch, "report", run, "--with-texts") == 2
    assert "--with-texts is for the page; give --out too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda record: record["task"].update(access="credentialed"), DataError, "no page may hold its texts"),
        (lambda record: record["recipe"]["task"].update(train="gone.csv"), CheckpointError, "cannot be read"),
        (lambda record: record["data_hashes"].update(test="other"), CheckpointError, "has changed since"),
    ],
)
def test_texts_that_may_not_or_cannot_be_shown(
    run: Path, change: Callable[[Any], None], error: type[Exception], message: str
) -> None:
    record = json.loads((run / "record.json").read_text())
    change(record)
    (run / "record.json").write_text(json.dumps(record))
    with pytest.raises(error, match=message):
        flips_of(run)
