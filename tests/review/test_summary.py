"""Counts of error classes and agreement of annotators, by hand arithmetic."""

from __future__ import annotations

import csv
import io
import json

import pytest

from plankwise.core.errors import CheckpointError
from plankwise.review.store import Answer, ReviewStore
from plankwise.review.summary import agreements, as_csv, as_label_studio, summarize


def label(store: ReviewStore, annotator: str, classes: str) -> None:
    """Label the items, from the first, as irony, quotation or a class of their own."""
    names = {"i": "irony", "q": "quotation", "o": "own"}
    for number, letter in enumerate(classes, 1):
        store.answer(number, annotator, store.add_class(names[letter]), "note" if letter == "o" else "")


def test_classes_are_counted_for_each_model_with_their_changes(store: ReviewStore) -> None:
    label(store, "Ada", "iiqoqi")
    document = summarize(store)
    rows = {(row["kind"], row["error_class"]): row for row in document["classes"]}
    # false positives: both irony; baseline irony; compressed quotation. Negatives: both own; compressed quotation;
    # baseline irony.
    expected = {
        ("false positive", "irony"): (2, 1, -1, False),
        ("false positive", "quotation"): (0, 1, 1, True),
        ("false negative", "irony"): (1, 0, -1, False),
        ("false negative", "own"): (1, 1, 0, False),
        ("false negative", "quotation"): (0, 1, 1, True),
    }
    found = {key: (row["baseline"], row["compressed"], row["change"], row["new"]) for key, row in rows.items()}
    assert found == expected
    assert document["progress"] == {"Ada": 6}
    assert document["kappa"] == []


def test_annotators_share_an_item(store: ReviewStore) -> None:
    label(store, "Ada", "i")
    label(store, "Bob", "q")
    rows = {row["error_class"]: row["baseline"] for row in summarize(store)["classes"]}
    assert rows == {"irony": 0.5, "quotation": 0.5}


def test_kappa_equals_hand_arithmetic() -> None:
    one = [Answer(number, "Ada", name, "") for number, name in enumerate("aabb")]
    other = [Answer(number, "Bob", name, "") for number, name in enumerate("aabba")]
    third = [Answer(number, "Cy", name, "") for number, name in enumerate("abab")]
    found = {tuple(each["annotators"]): (each["items"], each["kappa"]) for each in agreements([*one, *other, *third])}
    assert found[("Ada", "Bob")] == (4, pytest.approx(1.0))
    assert found[("Ada", "Cy")] == (4, pytest.approx(0.0))  # half agree, as chance has it
    alike = [Answer(0, name, "a", "") for name in ("Ada", "Bob")]
    assert agreements(alike)[0]["kappa"] is None


def test_a_review_without_answers_has_no_summary(store: ReviewStore) -> None:
    with pytest.raises(CheckpointError, match="no text has an answer yet; label some with review serve"):
        summarize(store)


def test_exports_hold_every_answer(store: ReviewStore) -> None:
    label(store, "Ada", "iqo")
    label(store, "Bob", "q")
    rows = list(csv.DictReader(io.StringIO(as_csv(store))))
    assert [(row["id"], row["annotator"], row["error_class"]) for row in rows] == [
        ("row-1", "Ada", "irony"),
        ("row-1", "Bob", "quotation"),
        ("row-2", "Ada", "quotation"),
        ("row-3", "Ada", "own"),
    ]
    assert rows[2]["text"].startswith("<script>")
    assert (rows[3]["baseline"], rows[3]["compressed"], rows[3]["note"]) == ("0", "1", "note")
    tasks = json.loads(as_label_studio(store))
    assert len(tasks) == 6
    assert tasks[2]["data"]["text"] == "größer 好 😀"
    assert [len(task["annotations"]) for task in tasks] == [2, 1, 1, 0, 0, 0]
    assert tasks[2]["annotations"][0]["result"][0]["value"] == {"choices": ["own"]}
