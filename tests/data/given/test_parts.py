"""Three parts of the user's rows: their sizes, that no text is in two of them, and when nothing can be held back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from plankwise.core.errors import DataError
from plankwise.data.given.parts import AGREEMENT, SCORE, GivenParts, split_given
from plankwise.data.given.rows import GivenRows
from plankwise.data.splitting import LabelledText
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN


def rows(count: int, labels: str | None = "ab", name: str = "t", **changes: Any) -> list[LabelledText]:
    return [
        {
            "id": f"{name}:{n}",
            "text": f"{name} text {n}",
            "text_pair": None,
            "label": None if labels is None else labels[n % len(labels)],
            **changes,
        }
        for n in range(count)
    ]


def given(*groups: list[LabelledText]) -> GivenRows:
    return GivenRows({Path(f"{n}.csv"): group for n, group in enumerate(groups)})


def sizes(parts: GivenParts) -> list[int]:
    return [len(parts.rows[part]) for part in (TRAIN, DEVELOPMENT, TEST)]


def ids(parts: GivenParts, part: str) -> set[str]:
    return {row["id"] for row in parts.rows[part]}


def test_labelled_rows_are_cut_by_label() -> None:
    parts = split_given(given(rows(500, "aaab")))
    assert sizes(parts) == [300, 100, 100]
    for part in parts.rows:
        counts = Counter(row["label"] for row in parts.rows[part])
        assert counts["b"] == len(parts.rows[part]) / 4
    assert parts.measured == {DEVELOPMENT: SCORE, TEST: SCORE}
    assert parts.said == ()


def test_the_cut_depends_on_the_seed_alone() -> None:
    first, again, other = (split_given(given(rows(300)), seed=seed) for seed in (1, 1, 2))
    assert first.rows == again.rows
    assert ids(first, TEST) != ids(other, TEST)


def test_unlabelled_rows_beside_labelled_ones_go_to_train() -> None:
    parts = split_given(given(rows(300), rows(40, None, "u")))
    assert sizes(parts) == [220, 60, 60]
    assert all(row["label"] is not None for part in (DEVELOPMENT, TEST) for row in parts.rows[part])


def test_unlabelled_rows_alone_are_cut_and_measure_agreement() -> None:
    parts = split_given(given(rows(300, None)))
    assert sizes(parts) == [180, 60, 60]
    assert parts.measured == {DEVELOPMENT: AGREEMENT, TEST: AGREEMENT}


def test_rows_of_test_files_decide_and_are_held_back_by_halves() -> None:
    test = given(rows(140, name="test"), rows(9, None, "unlabelled"))
    parts = split_given(given(rows(200)), test)
    assert sizes(parts) == [200, 70, 70]
    assert all(each.startswith("test") for part in (DEVELOPMENT, TEST) for each in ids(parts, part))
    assert parts.said == ("9 rows of --test without a label are left out",)
    mixed = split_given(given(rows(200, None)), test)
    assert mixed.measured == {DEVELOPMENT: SCORE, TEST: SCORE}
    few = split_given(given(rows(3)), test)  # none of them are held back, so there may be few
    assert sizes(few) == [3, 70, 70]


def test_rows_of_several_labels_are_cut() -> None:
    several = rows(300)
    for number, row in enumerate(several):
        row["label"] = [["a"], ["a", "b"], []][number % 3]
    assert sizes(split_given(given(several))) == [180, 60, 60]


def test_no_text_is_in_two_parts() -> None:
    own, test = rows(300), rows(120, name="test")
    for number in range(40):
        own[number]["text"] = f"  TEST\ttext {number}"
    parts = split_given(given(own), given(test))
    texts = {part: {" ".join(row["text"].lower().split()) for row in parts.rows[part]} for part in parts.rows}
    assert not texts[TRAIN] & texts[TEST]
    assert not texts[DEVELOPMENT] & texts[TEST]
    assert not texts[TRAIN] & texts[DEVELOPMENT]
    assert sizes(parts) == [260, 60, 60]
    assert parts.said == ("40 rows of train and 0 of development are left out: their texts are in a later part too",)


def test_a_text_twice_in_one_part_stays() -> None:
    parts = split_given(given(rows(30, text="same")), given(rows(120, name="test")))
    assert sizes(parts) == [30, 60, 60]


def test_too_many_rows_are_chosen_from_labelled_ones_first() -> None:
    most = {TRAIN: 200, DEVELOPMENT: 60, TEST: 55}
    parts = split_given(given(rows(300), rows(100, None, "u")), max_rows=most, seed=3)
    assert sizes(parts) == [200, 60, 55]
    assert sum(row["label"] is not None for row in parts.rows[TRAIN]) == 180
    assert parts.said == (
        "train: 200 of 280 rows are chosen to use, by seed 3",
        "test: 55 of 60 rows are chosen to use, by seed 3",
    )
    assert parts.rows == split_given(given(rows(300), rows(100, None, "u")), max_rows=most, seed=3).rows


def test_of_very_many_rows_some_are_cut() -> None:
    most = {TRAIN: 60, DEVELOPMENT: 60, TEST: 60}
    parts = split_given(given(rows(1000), rows(600, None, "u")), max_rows=most)
    assert sizes(parts) == [60, 60, 60]
    assert parts.said[0] == "1,080 of 1,600 rows are chosen to cut, by seed 0"
    assert all(row["label"] is not None for row in parts.rows[TRAIN])


@pytest.mark.parametrize(
    ("data", "test", "said"),
    [
        (
            rows(249),
            None,
            "249 labelled rows leave 49 for development and as many for test; allowed: 50 or",
        ),
        (
            rows(199, None),
            rows(60, name="test"),
            "60 labelled rows of --test leave 30 for development and as many for test; allowed: 50 or more, of 100",
        ),
        (rows(100) + rows(900, None), None, "--label '' leaves the rows unlabelled, so that all of them measure"),
        (rows(300), rows(99, None, "test"), "99 rows of --test leave 49 for development"),
        (rows(300, "a"), None, "the rows in development show one class only, 'a' in 60 rows"),
        (rows(300), rows(120, "a", "test"), "the rows in development show one class only, 'a' in 60 rows"),
        (rows(300, text="same"), None, "development has 0 rows; allowed: 50 or more"),
    ],
)
def test_nothing_can_be_held_back(data: list[LabelledText], test: list[LabelledText] | None, said: str) -> None:
    with pytest.raises(DataError, match=f"^no rows held back possible: .*{said}"):
        split_given(given(data), None if test is None else given(test))
