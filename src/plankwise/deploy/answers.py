"""What the logits of a deployed model mean: one class for each kind of answer, one table that names them.

A manifest names its kind of answer by a key of `ANSWERS`. A new kind is a class and an entry there: everything else in
`deploy/` goes through `Answer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from transformers import PreTrainedConfig

from plankwise.core.errors import ModelError
from plankwise.encoder.classifier_head import check_classifier

Probabilities = npt.NDArray[np.float64]
DEFAULT_KIND = "single_label"  # of a configuration without a problem type


class Answer(Protocol):
    """How one kind of model answers; `labels` are always those of the manifest, in the order of the logits."""

    @property
    def problem_type(self) -> str:
        """The `problem_type` of such models in their Transformers configuration."""
        ...

    def check_model(self, config: PreTrainedConfig, source: str) -> None:
        """Raise a ModelError if a model with this configuration does not answer this way."""
        ...

    def check_labels(self, labels: Sequence[str], source: str) -> None:
        """Raise a ModelError if these labels are too few for this kind of answer."""
        ...

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> Probabilities:
        """Turn logits into what is reported of each label, both [..., labels]."""
        ...

    def choose(self, probabilities: Probabilities, labels: Sequence[str]) -> list[tuple[str, ...]]:
        """Choose the labels of each text from its probabilities, [texts, labels]."""
        ...

    def agreement(self, before: Probabilities, after: Probabilities) -> float:
        """Compute the share of texts with the same labels, from two arrays of probabilities [texts, labels]."""
        ...

    def column_types(self, labels: Sequence[str]) -> dict[str, pa.DataType]:
        """Return the columns of a table of predictions, with their types in Parquet."""
        ...

    def columns(self, probabilities: Probabilities, labels: Sequence[str]) -> list[Sequence[Any]]:
        """Return the cells of these columns, column by column, from probabilities [texts, labels]."""
        ...


@dataclass(frozen=True)
class SingleLabel:
    """Exactly one label: the most probable one. Probabilities add up to 1."""

    problem_type: str = "single_label_classification"

    def check_model(self, config: PreTrainedConfig, source: str) -> None:
        """Raise a ModelError if it is not a classifier."""
        check_classifier(config, source)

    def check_labels(self, labels: Sequence[str], source: str) -> None:
        """Raise a ModelError if there is nothing to choose from."""
        if len(labels) < 2:
            raise ModelError(
                f"{source} answers with one number, not with labels; allowed: classifiers of two labels or more"
            )

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> Probabilities:
        """Compute the softmax over the labels."""
        wide = logits.astype(np.float64)
        exponentials = np.exp(wide - wide.max(axis=-1, keepdims=True))  # the largest is 1, so that none overflows
        shares: Probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
        return shares

    def choose(self, probabilities: Probabilities, labels: Sequence[str]) -> list[tuple[str, ...]]:
        """Choose the most probable label of each text."""
        alone = [(label,) for label in labels]
        return [alone[index] for index in probabilities.argmax(axis=1).tolist()]

    def agreement(self, before: Probabilities, after: Probabilities) -> float:
        """Compute the share of texts with the same most probable label."""
        return float((before.argmax(axis=1) == after.argmax(axis=1)).mean())

    def column_types(self, labels: Sequence[str]) -> dict[str, pa.DataType]:
        """Return one column of labels and one of probabilities for each label."""
        return {"predicted_label": pa.string(), **_probability_types(labels)}

    def columns(self, probabilities: Probabilities, labels: Sequence[str]) -> list[Sequence[Any]]:
        """Return the cells of these columns."""
        return [[label for (label,) in self.choose(probabilities, labels)], *probabilities.T]


@dataclass(frozen=True)
class MultiLabel:
    """Any number of labels: those of probability above one half, each of which is independent of the others."""

    problem_type: str = "multi_label_classification"

    def check_model(self, config: PreTrainedConfig, source: str) -> None:
        """Raise a ModelError if it is not a classifier."""
        check_classifier(config, source)

    def check_labels(self, labels: Sequence[str], source: str) -> None:
        """Accept any number of labels; a single one is there or not."""

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> Probabilities:
        """Compute the sigmoid of each logit."""
        shares: Probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
        return shares

    def choose(self, probabilities: Probabilities, labels: Sequence[str]) -> list[tuple[str, ...]]:
        """Choose the labels of each text that are more probable than not."""
        flags = (probabilities > 0.5).tolist()
        return [tuple(label for label, is_set in zip(labels, row, strict=True) if is_set) for row in flags]

    def agreement(self, before: Probabilities, after: Probabilities) -> float:
        """Compute the share of texts of which all labels are the same."""
        return float(((before > 0.5) == (after > 0.5)).all(axis=1).mean())

    def column_types(self, labels: Sequence[str]) -> dict[str, pa.DataType]:
        """Return one column of lists of labels and one of probabilities for each label."""
        return {"predicted_labels": pa.list_(pa.string()), **_probability_types(labels)}

    def columns(self, probabilities: Probabilities, labels: Sequence[str]) -> list[Sequence[Any]]:
        """Return the cells of these columns."""
        return [[list(chosen) for chosen in self.choose(probabilities, labels)], *probabilities.T]


ANSWERS: dict[str, Answer] = {"single_label": SingleLabel(), "multi_label": MultiLabel()}


def kind_of(config: PreTrainedConfig) -> str:
    """Return the kind of answer that a model's configuration names; `single_label` if it names none of `ANSWERS`."""
    named = {answer.problem_type: kind for kind, answer in ANSWERS.items()}
    return named.get(str(config.problem_type), DEFAULT_KIND)


def _probability_types(labels: Sequence[str]) -> dict[str, pa.DataType]:
    return {f"probability_{label}": pa.float32() for label in labels}
