"""The user's rows in three parts: seeded, stratified, no text in two of them, and enough rows to judge by."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from plankwise.core.errors import DataError
from plankwise.data.given.labels import NO_LABELS
from plankwise.data.given.rows import GivenRows
from plankwise.data.overlap import text_key
from plankwise.data.splitting import LabelledText, cut, labels_of
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN

Measured = Literal["score of the labels", "agreement with the original"]
SCORE: Measured = "score of the labels"
AGREEMENT: Measured = "agreement with the original"
HELD_BACK = (DEVELOPMENT, TEST)
MIN_ROWS = 50  # of a part that is held back: with fewer, a lower bound of 99 % retained cannot be shown
MAX_ROWS: Mapping[str, int] = MappingProxyType({TRAIN: 10_000, DEVELOPMENT: 2_000, TEST: 4_000})
POOL = 3  # times the rows of all parts are cut, where there are more: duplicates are dropped before parts are limited
TEST_SHARE = 0.2  # of the rows that measure
DEVELOPMENT_SHARE = 0.25  # of what is left of them, so that train, development and test are 60, 20 and 20 %


@dataclass(frozen=True)
class GivenParts:
    """Rows in three parts.

    Attributes:
        rows: of train, development and test.
        measured: of development and of test, what a score on it says.
        said: what was left out, in lines to print.
        texts: all rows of train, also those beyond the most that are used: what their words are is cheap to count.
    """

    rows: Mapping[str, list[LabelledText]]
    measured: Mapping[str, Measured]
    said: tuple[str, ...] = ()
    texts: Sequence[LabelledText] = ()


def split_given(
    given: GivenRows,
    test: GivenRows | None = None,
    *,
    seed: int = 0,
    max_rows: Mapping[str, int] = MAX_ROWS,
    min_rows: int = MIN_ROWS,
) -> GivenParts:
    """Cut rows into train, development and test: 60, 20 and 20 %; or test alone into halves that are held back.

    Where there are labelled rows, they alone are held back and the unlabelled ones go to train; otherwise the
    unlabelled ones are cut themselves. A text that is in two parts, ignoring case and white space, is dropped from
    train first, then from development.

    Args:
        given: rows to cut; all of them are for train if there are rows of test.
        test: rows that the model has never seen: one half decides, the other is scored at the end.
        seed: of the cuts and of the choice of rows where there are too many.
        max_rows: of each part.
        min_rows: of development and of test.

    Raises:
        DataError: if too few rows or only one class can be held back, or a class occurs in one part alone.
    """
    rows, said = _cut(given, test, seed, sum(max_rows.values()), min_rows)
    if test is not None and test.labelled and test.unlabelled:
        said.append(f"{len(test.unlabelled):,} rows of --test without a label are left out")
    said += _drop_shared(rows)
    texts = rows[TRAIN]
    said += [line for part in (TRAIN, *HELD_BACK) if (line := _limit(rows, part, max_rows[part], seed))]
    measured = {part: SCORE if rows[part] and rows[part][0]["label"] is not None else AGREEMENT for part in HELD_BACK}
    for part in HELD_BACK:
        _check_part(rows[part], part, min_rows)
    if not rows[TRAIN]:
        raise DataError("no rows held back possible: no text is left to train on, all are in development or test too")
    return GivenParts({part: rows[part] for part in (TRAIN, *HELD_BACK)}, measured, tuple(said), texts)


def _cut(
    given: GivenRows, test: GivenRows | None, seed: int, most: int, min_rows: int
) -> tuple[dict[str, list[LabelledText]], list[str]]:
    """Cut rows into parts; of very many only some are looked at, which is said."""
    own = given if test is None else test
    measuring, more = (own.labelled, own.unlabelled) if own.labelled else (own.unlabelled, [])
    _check_enough(len(measuring), bool(own.labelled), test is not None, min_rows)
    more = more if test is None else given.rows
    every = len(measuring) + len(more)
    measuring, more = _some(measuring, POOL * most, seed), _some(more, POOL * most, seed)
    looked_at = len(measuring) + len(more)
    said = [] if looked_at == every else [_chosen(looked_at, every, seed, "to cut")]
    if test is not None:  # the model has never seen these rows: they decide, too, rather than those it was trained on
        development, held_back = cut(measuring, 0.5, seed, "the rows for test")
        return {TEST: held_back, DEVELOPMENT: development, TRAIN: more}, said
    train, held_back = cut(measuring, TEST_SHARE, seed, "the rows for test")
    train, development = cut(train, DEVELOPMENT_SHARE, seed, "the rows for development")
    return {TEST: held_back, DEVELOPMENT: development, TRAIN: [*train, *more]}, said


def check_classes(labels: Sequence[str], part: str, measured: Measured) -> None:
    """Refuse a part that shows one class, or one score, only: any model that always answers the same is perfect on it.

    Args:
        labels: of each row; those of a row with several are joined.
        part: name of the part.
        measured: what its score says.

    Raises:
        DataError: naming the class.
    """
    seen = set(labels)
    if len(seen) < 2:
        whose = "the rows" if measured == SCORE else "the original's answers"
        shown = f"'{seen.pop()}'" if seen and "" not in seen else "no label"
        raise DataError(
            f"no rows held back possible: {whose} in {part} show one class only, {shown} in {len(labels)} rows; "
            "give rows of two classes or more"
        )


def joined(row: LabelledText) -> str:
    """Return the labels of a row as one string."""
    return "|".join(map(str, labels_of(row)))


def _check_enough(count: int, labelled: bool, has_test: bool, min_rows: int) -> None:
    """Refuse rows that are too few, before they are cut."""
    share = 0.5 if has_test else TEST_SHARE
    held, needed = math.floor(share * count), math.ceil(min_rows / share)
    if held < min_rows:
        whose = "of --test " if has_test else ""
        more = f"; {NO_LABELS}, so that all of them measure agreement" if labelled else ""
        raise DataError(
            f"no rows held back possible: {count} {'labelled ' if labelled else ''}rows {whose}leave {held} for "
            f"development and as many for test; "
            f"allowed: {min_rows} or more, of {needed} rows{more}"
        )


def _check_part(rows: Sequence[LabelledText], part: str, min_rows: int) -> None:
    if len(rows) < min_rows:
        raise DataError(f"no rows held back possible: {part} has {len(rows)} rows; allowed: {min_rows} or more")
    if rows[0]["label"] is not None:
        check_classes([joined(row) for row in rows], part, SCORE)


def _drop_shared(rows: dict[str, list[LabelledText]]) -> list[str]:
    """Drop, in place, rows of train and development whose text is in a later part."""
    later = {text_key(row) for row in rows[TEST]}
    dropped = Counter[str]()
    for part in (DEVELOPMENT, TRAIN):
        keys = [text_key(row) for row in rows[part]]
        kept = [row for key, row in zip(keys, rows[part], strict=True) if key not in later]
        dropped[part] = len(rows[part]) - len(kept)
        rows[part] = kept
        later.update(keys)
    if not dropped.total():
        return []
    return [
        f"{dropped[TRAIN]:,} rows of train and {dropped[DEVELOPMENT]:,} of development are left out: "
        "their texts are in a later part too"
    ]


def _limit(rows: dict[str, list[LabelledText]], part: str, max_rows: int, seed: int) -> str | None:
    """Choose, in place, at most so many rows of a part, labelled ones first; say so if there were more."""
    there = rows[part]
    if len(there) <= max_rows:
        return None
    labelled = [row for row in there if row["label"] is not None]
    others = [row for row in there if row["label"] is None]
    chosen = _some(labelled, max_rows, seed)
    rows[part] = [*chosen, *_some(others, max_rows - len(chosen), seed)]
    return f"{part}: {_chosen(max_rows, len(there), seed, 'to use')}"


def _some(rows: list[LabelledText], count: int, seed: int) -> list[LabelledText]:
    """Return at most so many rows, chosen by the seed, in their order."""
    if len(rows) <= count:
        return rows
    return [rows[at] for at in sorted(np.random.default_rng(seed).permutation(len(rows))[:count].tolist())]


def _chosen(count: int, of: int, seed: int, what_for: str) -> str:
    return f"{count:,} of {of:,} rows are chosen {what_for}, by seed {seed}"
