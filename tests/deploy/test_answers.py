"""Kinds of answers by hand, and a new kind that is one class and one entry of a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import BertConfig, PreTrainedConfig

from deployables import fake_model
from plankwise.core.errors import ModelError
from plankwise.deploy.answers import ANSWERS, Probabilities, kind_of
from plankwise.deploy.predictor import Predictor
from plankwise.deploy.tables.prediction import predict_table
from plankwise.deploy.wording import Wording

LABELS = ("good", "bad", "odd")
LOGITS = np.log([[1.0, 2.0, 5.0], [6.0, 1.0, 1.0]])


def test_a_single_label_by_hand() -> None:
    answer = ANSWERS["single_label"]
    shares = answer.probabilities(LOGITS)
    assert shares == pytest.approx(np.array([[1, 2, 5], [6, 1, 1]]) / 8)
    assert answer.probabilities(LOGITS + 1000) == pytest.approx(shares)  # no overflow
    assert answer.choose(shares, LABELS) == [("odd",), ("good",)]
    assert answer.agreement(shares, shares[:, ::-1]) == 0.0
    assert answer.agreement(shares, shares[[0, 0]]) == 0.5
    assert answer.columns(shares, LABELS)[0] == ["odd", "good"]


def test_several_labels_by_hand() -> None:
    answer = ANSWERS["multi_label"]
    shares = answer.probabilities(LOGITS)
    assert shares == pytest.approx(np.array([[1 / 2, 2 / 3, 5 / 6], [6 / 7, 1 / 2, 1 / 2]]))
    assert answer.choose(shares, LABELS) == [("bad", "odd"), ("good",)]
    other = shares.copy()
    other[0, 0] = 0.51
    assert answer.agreement(shares, other) == 0.5
    assert answer.columns(shares, LABELS)[0] == [["bad", "odd"], ["good"]]


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_cells_fit_their_columns(kind: str) -> None:
    answer = ANSWERS[kind]
    types, cells = answer.column_types(LABELS), answer.columns(answer.probabilities(LOGITS), LABELS)
    assert list(types)[1:] == ["probability_good", "probability_bad", "probability_odd"]
    assert [len(each) for each in cells] == [2] * len(types)
    assert answer.columns(np.zeros((0, 3)), LABELS)[0] == []


def test_the_kind_is_that_of_the_configuration() -> None:
    config = BertConfig(num_labels=1, problem_type="multi_label_classification")
    assert kind_of(config) == "multi_label"
    assert kind_of(BertConfig()) == "single_label"
    ANSWERS["multi_label"].check_model(config, "it")
    ANSWERS["multi_label"].check_labels(("one",), "it")
    with pytest.raises(ModelError, match="it answers with one number"):
        ANSWERS["single_label"].check_labels(("one",), "it")
    assert kind_of(BertConfig(num_labels=1)) == "sigmoid_score"  # a reranker of old, which says nothing
    assert kind_of(BertConfig(num_labels=1, problem_type="regression")) == "regression"
    with pytest.raises(ModelError, match="it has 2 outputs; allowed: one, a score"):
        ANSWERS["regression"].check_labels(LABELS[:2], "it")
    several = BertConfig(num_labels=2, problem_type="regression")
    with pytest.raises(ModelError, match="answers with 2 numbers; allowed: one, or a classifier"):
        ANSWERS[kind_of(several)].check_model(several, "it")


@pytest.mark.parametrize("kind", ["regression", "sigmoid_score"])
def test_a_score_by_hand(kind: str) -> None:
    answer, logits = ANSWERS[kind], np.array([[0.0], [3.0], [-2.0], [-800.0]])
    scores = answer.probabilities(logits)
    expected = logits if kind == "regression" else 1 / (1 + np.exp(-np.maximum(logits, -700)))
    assert scores == pytest.approx(expected)
    assert answer.choose(scores, ("score",)) == [()] * 4
    assert {**answer.column_types(("score",))} == {"score": pa.float32()}
    assert list(answer.columns(scores, ("score",))[0]) == scores[:, 0].tolist()


def test_changes_of_scores_are_shares_of_their_spread() -> None:
    """Also under a sigmoid, where the scores of most pairs are about 0 whatever happens to their order."""
    answer, logits = ANSWERS["sigmoid_score"], np.array([[-8.0], [-10.0], [-12.0], [-14.0]])
    spread = answer.spread(logits)
    assert spread == pytest.approx(4 * np.sqrt(5))
    assert answer.changes(logits, logits[::-1], spread).max() == pytest.approx(6 / spread)
    assert answer.spread(np.zeros((3, 1))) == 1e-3
    assert [ANSWERS[kind].spread(LOGITS) for kind in ("single_label", "multi_label")] == [1.0, 1.0]


def test_scores_agree_by_their_order() -> None:
    answer, scores = ANSWERS["regression"], np.array([[1.0], [2.0], [3.0]])
    assert answer.agreement(scores, 10 * scores) == 1.0
    assert answer.agreement(scores, -scores) == 0.0
    assert answer.agreement(scores, np.zeros((3, 1))) == 0.5  # one constant orders nothing
    assert answer.agreement(scores, scores[[1, 0, 2]]) == pytest.approx(2 / 3)
    assert answer.agreement(scores[:1], scores[:1]) == 1.0


class Ordinals:
    """Numbers as they are, one for each name."""

    problem_type = "ordinal"
    wording = Wording("a number", "numbers", "", "numbers")

    def check_model(self, config: PreTrainedConfig, source: str) -> None:
        pass

    def check_labels(self, labels: Sequence[str], source: str) -> None:
        pass

    def probabilities(self, logits: Any) -> Probabilities:
        return np.asarray(logits, dtype=np.float64)

    def changes(self, before: Any, after: Any, spread: float) -> Probabilities:
        found: Probabilities = np.abs(np.asarray(before, dtype=np.float64) - after) / spread
        return found

    def spread(self, logits: Any) -> float:
        return 1.0

    def choose(self, probabilities: Probabilities, labels: Sequence[str]) -> list[tuple[str, ...]]:
        return [()] * len(probabilities)

    def agreement(self, before: Probabilities, after: Probabilities) -> float:
        return float((before.round() == after.round()).all(axis=1).mean())

    def column_types(self, labels: Sequence[str]) -> dict[str, pa.DataType]:
        return {f"score_{label}": pa.float32() for label in labels}

    def columns(self, probabilities: Probabilities, labels: Sequence[str]) -> list[Sequence[Any]]:
        return list(probabilities.T)


def test_a_new_kind_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "ordinals", Ordinals())
    config = BertConfig()
    config.problem_type = "ordinal"
    assert kind_of(config) == "ordinals"
    predictor = Predictor(fake_model(kind="ordinals"))
    [made] = predictor.predict(["the day"])
    assert (made.labels, made.probabilities["bad"]) == ((), 0.4)  # the fake model's tenth of four tokens
    (tmp_path / "in.csv").write_text("text\nthe day\nnever\n")
    predict_table(predictor, tmp_path / "in.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [*found[0]] == ["row", "score_good", "score_bad"]
    assert [row["score_bad"] for row in found] == ["0.4", "0.3"]
