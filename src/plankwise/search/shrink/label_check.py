"""Whether the given labels and the original's own answers belong together, and what is said where they do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pydantic

from plankwise.data.splitting import LabelledText, labels_of
from plankwise.evaluation.metrics import METRICS

UNRELATED = 0.1  # rank correlation below which scores most likely mean something else than the original's
TRAINED_ON = 0.995  # share of labelled rows; an original that is right on more has most likely seen them


class LabelCheck(pydantic.BaseModel):
    """How the original's answers compare with the given labels of the rows that measure.

    Attributes:
        rows: some with a label, of test, or of development if none of test has one.
        right: of these, where the original gives the same label, or all labels.
        majority: of these, how many have the most frequent label or combination of labels.
        correlation: of scores alone, their rank correlation with the original's; nothing is right or wrong then.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    rows: int
    right: int
    majority: int
    correlation: float | None = None


def compare_labels(rows: Sequence[LabelledText], answers: Mapping[str, list[Any]], scores: bool) -> LabelCheck | None:
    """Compare the original's answers with the given labels, or scores.

    Args:
        rows: with a label.
        answers: of the original: of each row's id its labels, or its score alone.
        scores: whether these are scores.

    Returns:
        What was found; None without rows.
    """
    if not rows:
        return None
    if scores:
        given, own = np.array([row["label"] for row in rows]), np.array([answers[row["id"]] for row in rows])
        return LabelCheck(rows=len(rows), right=0, majority=0, correlation=METRICS["spearman"](given, own))
    right = sum(set(labels_of(row)) == set(answers[row["id"]]) for row in rows)
    most = Counter(frozenset(labels_of(row)) for row in rows).most_common(1)[0][1]
    return LabelCheck(rows=len(rows), right=right, majority=most)


def doubts(check: LabelCheck | None, has_test: bool) -> tuple[str, ...]:
    """Return what makes the measurement doubtful, in lines to print; `has_test`: whether files for test are given."""
    if check is None:
        return ()
    if check.correlation is not None:
        return _notes_of_scores(check)
    if check.right >= TRAINED_ON * check.rows:
        give = "give rows it has not seen as --test" if has_test else "give --test with rows it has not seen"
        return (
            f"the original was probably trained on these rows, {check.right} of {check.rows} of which it labels right; "
            f"what is kept is measured too kindly: {give}",
        )
    if check.right <= check.majority:
        return (
            f"the original labels {check.right} of {check.rows} rows right, and always answering the most frequent "
            f"label {check.majority}; see whether --map and the labels' column are right",
        )
    return ()


def _notes_of_scores(check: LabelCheck) -> tuple[str, ...]:
    assert check.correlation is not None
    if check.correlation >= UNRELATED:
        return ()
    return (
        f"the original's scores and those of {check.rows} rows have a rank correlation of {check.correlation:.2f}; "
        "see whether the scores' column is right",
    )
