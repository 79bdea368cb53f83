"""The same text in two splits: counted, said, dropped on request; test stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from plankwise.core.errors import DataError
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN, build_task

OWN = {
    part: [{"id": f"{part}{n}", "text": f"{part} {n}", "label": "ab"[n % 2]} for n in range(6)]
    for part in (TRAIN, DEVELOPMENT, TEST)
}


def row(number: int, text: str, label: Any, **more: Any) -> Any:
    return {"id": f"x{number}", "text": text, "label": label, **more}


SHARED = {
    TRAIN: [row(1, "So  FINE\n a day", "a"), row(2, "so fine a day", "b"), row(3, "Grim", "a"), row(4, "kind", "b")],
    DEVELOPMENT: [row(5, "grim ", "b"), row(6, "warm", "a")],
    TEST: [row(7, "so fine a day", "a"), row(8, "Warm", "a"), row(9, "WARM", "b")],
}


def loaded(extra: Any = SHARED, **options: Any) -> Any:
    return build_task("t", {part: OWN[part] + extra[part] for part in OWN}, ("macro_f1",), **options)


def test_is_counted_for_each_pair_with_labels_that_conflict(caplog: pytest.LogCaptureFixture) -> None:
    task = loaded()
    assert dict(task.splits.num_rows) == {TRAIN: 10, DEVELOPMENT: 8, TEST: 9}
    mend = "`deduplicate: true` in the task, or --deduplicate, drops such rows from"
    assert caplog.messages == [
        f"t: {said} (1 with another label there); {mend} {earlier}"
        for said, earlier in (
            ("2 of 9 rows of test have a text that is in development too", DEVELOPMENT),
            ("1 of 9 rows of test have a text that is in train too", TRAIN),
            ("1 of 8 rows of development have a text that is in train too", TRAIN),
        )
    ]


def test_is_dropped_from_the_earlier_split_on_request(caplog: pytest.LogCaptureFixture) -> None:
    plain, task = loaded(), loaded(deduplicate=True)
    assert {part: split["id"][-2:] for part, split in task.splits.items()} == {
        TRAIN: ["train5", "x4"],
        DEVELOPMENT: ["development5", "x5"],
        TEST: ["x8", "x9"],
    }
    assert dict(task.splits.num_rows) == {TRAIN: 7, DEVELOPMENT: 7, TEST: 9}
    assert plain.hashes[TEST] == task.hashes[TEST]
    assert [message.partition(" dropped")[0] for message in caplog.messages[3:]] == [
        "t: 1 of 8 rows of development",
        "t: 2 of 10 rows of train",
        "t: 1 of 8 rows of train",
    ]


def test_repeats_in_one_table_fall_on_both_sides_of_a_cut(caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(n, f"text {n // 2}", "ab"[n // 2 % 2]) for n in range(200)]
    plain, task = (build_task("t", {TRAIN: rows}, ("macro_f1",), deduplicate=drop) for drop in (False, True))
    assert "rows of test have a text that is in train too; " in caplog.text
    texts = {part: set(split["text"]) for part, split in task.splits.items()}
    assert not texts[TRAIN] & texts[TEST]
    assert not texts[TRAIN] & texts[DEVELOPMENT]
    assert not texts[DEVELOPMENT] & texts[TEST]
    assert task.hashes[TEST] == plain.hashes[TEST]
    assert set(task.splits[TRAIN]["id"]) < set(plain.splits[TRAIN]["id"])


def test_pairs_are_the_same_if_both_texts_are(caplog: pytest.LogCaptureFixture) -> None:
    parts = {part: [{**each, "text_pair": "p"} for each in rows] for part, rows in OWN.items()}
    parts[TRAIN].append(row(1, "one", "a", text_pair="two"))
    parts[TEST] += [row(2, "one", "a", text_pair="other"), row(3, "One", "a", text_pair="TWO ")]
    build_task("t", parts, ("macro_f1",))
    assert [message[:30] for message in caplog.messages] == ["t: 1 of 8 rows of test have a "]


def test_nothing_is_said_where_nothing_is_shared(caplog: pytest.LogCaptureFixture) -> None:
    loaded({part: [] for part in OWN})
    assert not caplog.records


def test_a_split_that_repeats_test_wholly_leaves_nothing() -> None:
    parts = {TRAIN: OWN[TEST], DEVELOPMENT: OWN[DEVELOPMENT], TEST: OWN[TEST]}
    with pytest.raises(DataError, match="the train split is empty"):
        build_task("t", parts, ("macro_f1",), deduplicate=True)
