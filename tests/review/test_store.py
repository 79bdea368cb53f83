"""The database: answers, undo, classes, and what survives a kill."""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

import pytest

import processes
from plankwise.core.errors import CheckpointError, DataError
from plankwise.review.store import FILE, Answer, ReviewStore


def test_an_answer_replaces_an_earlier_one_and_undo_brings_it_back(store: ReviewStore) -> None:
    irony, quotation = store.classes()
    store.answer(1, "Ada", irony, "a note")
    store.answer(1, "Ada", quotation, "")
    assert store.answers("Ada") == [Answer(1, "Ada", "quotation", "")]
    assert store.undo("Ada") == 1
    assert store.answers("Ada") == [Answer(1, "Ada", "irony", "a note")]
    assert store.undo("Ada") == 1
    assert store.answers() == []
    assert store.undo("Ada") is None


def test_annotators_do_not_see_each_others_answers(store: ReviewStore) -> None:
    irony, quotation = store.classes()
    store.answer(1, "Ada", irony, "")
    store.answer(1, "Bob", quotation, "")
    assert store.answers("Bob") == [Answer(1, "Bob", "quotation", "")]
    assert store.undo("Bob") == 1
    assert [answer.annotator for answer in store.answers()] == ["Ada"]


def test_a_class_is_made_once_whatever_its_case_and_spaces(store: ReviewStore) -> None:
    made = store.add_class("  Missing   context ")
    assert store.add_class("missing CONTEXT") == made
    assert store.add_class("Irony") == next(iter(store.classes()))
    assert list(store.classes().values()) == ["irony", "quotation", "Missing context"]
    for name in ("", "   ", "x" * 61):
        with pytest.raises(DataError, match="1 to 60 characters"):
            store.add_class(name)


def test_answers_to_what_is_not_there_are_refused(store: ReviewStore) -> None:
    irony = next(iter(store.classes()))
    for item, class_id in ((99, irony), (1, 99)):
        with pytest.raises(DataError, match=f"there is no item {item}, or no error class {class_id}"):
            store.answer(item, "Ada", class_id, "")
    assert store.undo("Ada") is None


def test_many_annotators_at_once_lose_nothing(store: ReviewStore) -> None:
    irony = next(iter(store.classes()))

    def label(name: str) -> None:
        for number in range(1, 7):
            store.answer(number, name, irony, "")

    threads = [threading.Thread(target=label, args=(f"annotator {each}",)) for each in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(store.answers()) == 48


KILLED = """
import os, sys
from pathlib import Path
from plankwise.review.store import ReviewStore
store = ReviewStore(Path(sys.argv[1]))
for number in range(1, 7):
    store.answer(number, "Ada", 1, "")
    if number == 4:
        Path(sys.argv[1] + ".ready").touch()
        while True:
            pass
"""


def test_answers_survive_a_kill(store: ReviewStore, tmp_path: Path) -> None:
    process = processes.start(["-c", KILLED, tmp_path / FILE], tmp_path, variables=dict(os.environ))
    processes.wait_for((tmp_path / f"{FILE}.ready").exists, process)
    processes.kill(process)
    assert [answer.item for answer in ReviewStore(tmp_path / FILE).answers()] == [1, 2, 3, 4]


def test_what_is_no_review_or_of_another_version_is_refused(store: ReviewStore, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no review in .*: review\.sqlite is missing"):
        ReviewStore(tmp_path / "nowhere" / FILE)
    (tmp_path / "text").write_text("no database, but long enough to look like something else altogether" * 20)
    with pytest.raises(CheckpointError, match="is not a review"):
        ReviewStore(tmp_path / "text")
    connection = sqlite3.connect(tmp_path / FILE)
    with connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    connection.close()
    with pytest.raises(CheckpointError, match="of version 99; this plankwise reads version 1"):
        ReviewStore(tmp_path / FILE)
