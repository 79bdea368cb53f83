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
from plankwise.deploy.wording import OF_LABELS, OF_SCORES, Wording
from plankwise.encoder.classifier_head import check_answers, check_classifier
from plankwise.encoder.score_head import REGRESSION, SCORE, Activation, activation_of, is_scorer

Probabilities = npt.NDArray[np.float64]
DEFAULT_KIND = "single_label"  # of a configuration without a problem type
SMALLEST_SPREAD = 1e-3  # of scores: where all are about the same, rounding errors are no changes


class Answer(Protocol):
    """How one kind of model answers; `labels` are always those of the manifest, in the order of the logits."""

    @property
    def problem_type(self) -> str:
        """The `problem_type` of such models in their Transformers configuration."""
        ...

    @property
    def wording(self) -> Wording:
        """What messages call such an answer."""
        ...

    def check_model(self, config: PreTrainedConfig, source: str) -> None:
        """Raise a ModelError if a model with this configuration does not answer this way."""
        ...

    def check_labels(self, labels: Sequence[str], source: str) -> None:
        """Raise a ModelError if these labels are too few for this kind of answer."""
        ...

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> Probabilities:
        """Turn logits into what is reported of each label, both [..., labels]: probabilities, or a score."""
        ...

    def changes(
        self, before: npt.NDArray[np.floating[Any]], after: npt.NDArray[np.floating[Any]], spread: float
    ) -> Probabilities:
        """Compute by how much an artefact's answers differ from the model's, from two arrays of logits [texts, labels].

        Args:
            before: of the model.
            after: of the artefact.
            spread: of the model's logits over many texts, by `spread`.
        """
        ...

    def spread(self, logits: npt.NDArray[np.floating[Any]]) -> float:
        """Return the unit of `changes`, from logits [texts, labels]: 1 where these are probabilities."""
        ...

    def choose(self, probabilities: Probabilities, labels: Sequence[str]) -> list[tuple[str, ...]]:
        """Choose the labels of each text from its probabilities, [texts, labels]; none where there is only a score."""
        ...

    def agreement(self, before: Probabilities, after: Probabilities) -> float:
        """Compute the share of texts with the same labels, from two arrays of probabilities [texts, labels].

        Of scores it is the share of pairs of texts that are in the same order, ties counting half.
        """
        ...

    def column_types(self, labels: Sequence[str]) -> dict[str, pa.DataType]:
        """Return the columns of a table of predictions, with their types in Parquet."""
        ...

    def columns(self, probabilities: Probabilities, labels: Sequence[str]) -> list[Sequence[Any]]:
        """Return the cells of these columns, column by column, from probabilities [texts, labels]."""
        ...


class _OfLabels:
    """What both kinds of classifier share."""

    wording = OF_LABELS

    def changes(
        self, before: npt.NDArray[np.floating[Any]], after: npt.NDArray[np.floating[Any]], spread: float
    ) -> Probabilities:
        """Compute the absolute differences of the probabilities."""
        del spread
        found: Probabilities = np.abs(self.probabilities(before) - self.probabilities(after))
        return found

    def spread(self, logits: npt.NDArray[np.floating[Any]]) -> float:
        """Return 1: probabilities have a scale of their own."""
        del logits
        return 1.0

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> Probabilities:
        """Turn logits into probabilities, both [..., labels]."""
        raise NotImplementedError


@dataclass(frozen=True)
class SingleLabel(_OfLabels):
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
class MultiLabel(_OfLabels):
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


@dataclass(frozen=True)
class Score:
    """One number, which is compared and never decides anything.

    Attributes:
        activation: between the logit and the number.
        problem_type: of such models.
    """

    activation: Activation
    problem_type: str = REGRESSION

    wording = OF_SCORES

    def check_model(self, config: PreTrainedConfig, source: str) -> None:
        """Raise a ModelError if it does not answer with one number."""
        check_answers(config, source)

    def check_labels(self, labels: Sequence[str], source: str) -> None:
        """Raise a ModelError if there is more than one output."""
        if len(labels) != 1:
            raise ModelError(f"{source} has {len(labels)} outputs; allowed: one, a score")

    def probabilities(self, logits: npt.NDArray[np.floating[Any]]) -> Probabilities:
        """Return the scores, [..., 1]."""
        wide: Probabilities = logits.astype(np.float64)
        return wide if self.activation == "identity" else np.exp(-np.logaddexp(0.0, -wide))

    def changes(
        self, before: npt.NDArray[np.floating[Any]], after: npt.NDArray[np.floating[Any]], spread: float
    ) -> Probabilities:
        """Compute the absolute differences of the logits, as shares of the spread.

        A sigmoid would hide them: nearly all pairs that a reranker sees score about 0.
        """
        found: Probabilities = np.abs(before.astype(np.float64) - after) / spread
        return found

    def spread(self, logits: npt.NDArray[np.floating[Any]]) -> float:
        """Return four standard deviations: about as much as scores can differ, as probabilities can by 1."""
        return max(4 * float(np.std(logits)), SMALLEST_SPREAD)

    def choose(self, probabilities: Probabilities, labels: Sequence[str]) -> list[tuple[str, ...]]:
        """Return no labels for any text."""
        del labels
        return [() for _ in probabilities]

    def agreement(self, before: Probabilities, after: Probabilities) -> float:
        """Compute the share of pairs of texts in the same order; ties of one side count half."""
        orders = [np.sign(each[:, :1] - each[:, :1].T) for each in (before, after)]
        other = ~np.eye(len(before), dtype=bool)
        return float((1 - np.abs(orders[0] - orders[1]) / 2)[other].mean()) if len(before) > 1 else 1.0

    def column_types(self, labels: Sequence[str]) -> dict[str, pa.DataType]:
        """Return one column of scores."""
        del labels
        return {SCORE: pa.float32()}

    def columns(self, probabilities: Probabilities, labels: Sequence[str]) -> list[Sequence[Any]]:
        """Return the cells of this column."""
        del labels
        return [*probabilities.T]


ANSWERS: dict[str, Answer] = {
    "single_label": SingleLabel(),
    "multi_label": MultiLabel(),
    "regression": Score("identity"),
    "sigmoid_score": Score("sigmoid", problem_type="sigmoid_score"),
}


def kind_of(config: PreTrainedConfig) -> str:
    """Return the kind of answer that a model's configuration names; `single_label` if it names none of `ANSWERS`.

    Raises:
        ModelError: if it scores, through a function that is not known.
    """
    if is_scorer(config):
        return "regression" if activation_of(config, "the model") == "identity" else "sigmoid_score"
    named = {answer.problem_type: kind for kind, answer in ANSWERS.items()}
    return named.get(str(config.problem_type), DEFAULT_KIND)


def _probability_types(labels: Sequence[str]) -> dict[str, pa.DataType]:
    return {f"probability_{label}": pa.float32() for label in labels}
