"""Raw labels and labels of a model: matched by name, with a mapping, and never by position."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from plankwise.core.errors import DataError
from plankwise.data.given.labels import LabelMatcher, guess_separator, is_unlabelled, raw_labels, read_names

LABELS = ("hate", "offensive", "None")


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("hate", "hate"),
        (" Hate ", "hate"),
        ("OFF\u200bENSIVE", "offensive"),
        ("none", "None"),
        ("None", "None"),
        ("0", None),
        (0, None),
        ("LABEL_0", None),
        ("hat", None),
    ],
)
def test_names_match_as_they_are_or_but_for_case_and_space(raw: Any, label: str | None) -> None:
    assert LabelMatcher(LABELS).match(raw) == label


@pytest.mark.parametrize("raw", ["0", 0, 0.0, " 0.0 "])
def test_a_mapping_comes_first(raw: Any) -> None:
    matcher = LabelMatcher(("LABEL_0", "LABEL_1", "0"), {"0": "label_1"})
    assert matcher.match(raw) == "LABEL_1"
    matcher.check_used()


def test_labels_that_look_alike_match_only_as_they_are() -> None:
    matcher = LabelMatcher(("a", "A", "b"))
    assert [matcher.match(raw) for raw in ("a", "A", " a", "B")] == ["a", "A", "a", "b"]
    assert LabelMatcher(("ab", "AB")).match("Ab") is None


def test_a_mapping_to_no_label_is_refused() -> None:
    with pytest.raises(DataError, match=r"--map 0=hat: the model has no label 'hat'; did you mean 'hate'\? Allowed: h"):
        LabelMatcher(LABELS, {"0": "hat"})


def test_a_mapping_that_no_row_needs_is_refused() -> None:
    matcher = LabelMatcher(LABELS, {"0": "hate", "1": "None"})
    matcher.match("1")
    assert matcher.fits(["0"])  # a guess is no use
    with pytest.raises(DataError, match="--map 0=hate: no row has the label '0'"):
        matcher.check_used()


def test_what_is_no_label_says_why() -> None:
    matcher = LabelMatcher(("a", "b"))
    for raw, why in (("NaN", "reads as a missing value"), (0.5, "not whole"), (["a"], "a list"), ({}, "an object")):
        with pytest.raises(ValueError, match=why):
            matcher.match(raw)
        assert not matcher.fits(["a", raw])


def test_a_mismatch_names_both_lists_and_the_way_out() -> None:
    said = str(LabelMatcher(LABELS).mismatch(Counter({"0": 3, "1": 2}), "class", "t.csv"))
    assert said == (
        "t.csv: the column 'class' holds labels that the model does not have: '0' (3), '1' (2); the model's are hate, "
        "offensive, None. Labels are matched by name: give --map '0=LABEL' for each, or --label for another column; "
        "--label '' leaves the rows unlabelled"
    )


@pytest.mark.parametrize(
    "values", [["a secret text of many words " * 3, "a short secret"], [f"secret {n}" for n in range(60)]]
)
def test_a_mismatch_never_quotes_texts(values: list[str]) -> None:
    said = str(LabelMatcher(LABELS).mismatch(Counter(values), "text", "t.csv"))
    assert f"holds {len(values)} values that are not labels" in said
    assert "secret" not in said
    assert "--map 'RAW=LABEL'" in said


def test_options_are_read() -> None:
    assert read_names(["0=hate", " 1 = a=b ", "1.0=a=b"]) == {"0": "hate", "1": "a=b"}
    for bad, why in (
        (["hate"], "RAW=LABEL"),
        (["=hate"], "RAW=LABEL"),
        (["0="], "RAW=LABEL"),
        (["0=a", "0=b"], "twice"),
    ):
        with pytest.raises(DataError, match=why):
            read_names(bad)


def test_empty_cells_are_unlabelled_and_empty_lists_are_not() -> None:
    assert all(map(is_unlabelled, ["", "  ", None, float("nan"), "\u200b"]))
    assert not any(map(is_unlabelled, [[], ["a"], "a", 0, "0"]))


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["a|b", "c", None], "|"),
        (["a; b", ""], ";"),
        (["a", "b"], None),
        ([["a", "b"], []], None),
        (["x|y", "a"], "|"),  # fits no label: named all the same, so that x and y can be
    ],
)
def test_the_separator_is_guessed(cells: list[Any], separator: str | None) -> None:
    assert guess_separator(cells, LabelMatcher(("a", "b", "c")), "t.csv") == separator


def test_two_separators_are_refused() -> None:
    with pytest.raises(DataError, match="separated by one label a row or ','; choose by --label-separator"):
        guess_separator(["a,b"], LabelMatcher(("a", "b", "a,b")), "t.csv")


def test_cells_fall_into_raw_labels() -> None:
    assert raw_labels("a|b", False, None) == ["a|b"]
    assert raw_labels("a|b| ", True, "|") == ["a", "b"]
    assert raw_labels("a|b", True, None) == ["a|b"]
    assert raw_labels(["a", ""], True, None) == ["a"]
