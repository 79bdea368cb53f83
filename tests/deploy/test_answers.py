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
    with pytest.raises(ModelError, match="answers with 2 numbers, as rerankers and regressors do"):
        ANSWERS[kind_of(BertConfig(problem_type="regression"))].check_model(BertConfig(problem_type="regression"), "it")


class Scores:
    """Numbers as they are, without labels."""

    problem_type = "regression"

    def check_model(self, config: PreTrainedConfig, source: str) -> None:
        pass

    def check_labels(self, labels: Sequence[str], source: str) -> None:
        pass

    def probabilities(self, logits: Any) -> Probabilities:
        return np.asarray(logits, dtype=np.float64)

    def choose(self, probabilities: Probabilities, labels: Sequence[str]) -> list[tuple[str, ...]]:
        return [()] * len(probabilities)

    def agreement(self, before: Probabilities, after: Probabilities) -> float:
        return float((before.round() == after.round()).all(axis=1).mean())

    def column_types(self, labels: Sequence[str]) -> dict[str, pa.DataType]:
        return {f"score_{label}": pa.float32() for label in labels}

    def columns(self, probabilities: Probabilities, labels: Sequence[str]) -> list[Sequence[Any]]:
        return list(probabilities.T)


def test_a_new_kind_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "scores", Scores())
    assert kind_of(BertConfig(problem_type="regression")) == "scores"
    predictor = Predictor(fake_model(kind="scores"))
    [made] = predictor.predict(["the day"])
    assert (made.labels, made.probabilities["bad"]) == ((), 0.4)  # the fake model's tenth of four tokens
    (tmp_path / "in.csv").write_text("text\nthe day\nnever\n")
    predict_table(predictor, tmp_path / "in.csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [*found[0]] == ["row", "score_good", "score_bad"]
    assert [row["score_bad"] for row in found] == ["0.4", "0.3"]
