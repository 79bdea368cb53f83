"""How a split stores labels: one index for each text, one flag for each label, or a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Sequence as ListOf
from datasets import Value

from plankwise.core.errors import DataError, suggest


@dataclass(frozen=True)
class LabelColumn:
    """The `label` column of one kind of task.

    Attributes:
        feature: type of the column.
        several: whether a text may have any number of labels, none included.
        scores: whether a label is a number to come near to, so that the task has no classes.
        store: from a row's label, or list of labels, and the index of each label in the model's logits to a cell.
    """

    feature: Any
    several: bool
    store: Callable[[Any, Mapping[str, int]], Any]
    scores: bool = False


LABEL_COLUMNS = {
    "single_label": LabelColumn(Value("int64"), several=False, store=lambda label, index: index[label]),
    "multi_label": LabelColumn(
        ListOf(Value("float32")), several=True, store=lambda labels, index: [float(name in labels) for name in index]
    ),
    "regression": LabelColumn(Value("float64"), several=False, store=lambda score, index: float(score), scores=True),
}
LABEL_COLUMNS["sigmoid_score"] = LABEL_COLUMNS["regression"]  # of a model that has a sigmoid before its score


def label_column(kind: str) -> LabelColumn:
    """Return how a kind of task stores its labels.

    Raises:
        DataError: if the kind has no labels, or is unknown.
    """
    if kind not in LABEL_COLUMNS:
        raise DataError(f"no kind of labels '{kind}'; {suggest(kind, LABEL_COLUMNS)}")
    return LABEL_COLUMNS[kind]
