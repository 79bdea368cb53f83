"""Heads of one output: what Transformers and sentence-transformers write, and what is made of it."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import BertConfig

from plankwise.core.errors import ModelError
from plankwise.encoder.score_head import activation_of, check_scorer, is_scorer, make_regressor

OLD, NEW = "sbert_ce_default_activation_function", "sentence_transformers"
IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


def config(labels: int = 1, /, **changes: Any) -> BertConfig:
    made = BertConfig(num_labels=labels)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (config(), True),  # a reranker of old says nothing
        (config(problem_type="regression"), True),
        (config(2, problem_type="regression"), True),
        (config(2), False),
        (config(problem_type="multi_label_classification"), False),  # one label that is there or not
    ],
)
def test_which_models_score(given: BertConfig, expected: bool) -> None:
    assert is_scorer(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (config(), "sigmoid"),  # as sentence-transformers and the pipelines of Transformers read it
        (config(problem_type="regression"), "identity"),
        (config(**{OLD: IDENTITY}), "identity"),
        (config(**{OLD: SIGMOID}), "sigmoid"),
        (config(**{NEW: {"activation_fn": IDENTITY, "version": "5.0"}}), "identity"),
        (config(**{NEW: {"activation_fn": "torch.nn.Sigmoid"}, OLD: IDENTITY}), "sigmoid"),  # the newer one counts
        (config(problem_type="regression", **{NEW: {"activation_fn": SIGMOID}}), "sigmoid"),
        (config(**{NEW: {"version": "5.0"}}), "sigmoid"),
    ],
)
def test_the_function_between_logit_and_score(given: BertConfig, expected: str) -> None:
    assert activation_of(given, "m") == expected


@pytest.mark.parametrize("named", ["torch.nn.modules.activation.Tanh", "mine.Sigmoid", 3])
def test_a_function_that_is_not_known_is_refused(named: Any) -> None:
    with pytest.raises(ModelError, match=r"m: its scores pass through .*; allowed: Identity, Sigmoid of torch\.nn"):
        check_scorer(config(**{OLD: named}), "m")


def test_what_does_not_score_is_refused() -> None:
    with pytest.raises(ModelError, match="m chooses among 3 labels; allowed: one output, a score"):
        check_scorer(config(3), "m")
    with pytest.raises(ModelError, match="m answers with 2 numbers; allowed: one"):
        check_scorer(config(2, problem_type="regression"), "m")


def test_a_regressor_is_one_for_transformers_and_sentence_transformers() -> None:
    made = config(3, **{OLD: SIGMOID, NEW: {"version": "5.0", "activation_fn": SIGMOID}})
    make_regressor(made)
    assert (made.num_labels, made.id2label, made.problem_type) == (1, {0: "score"}, "regression")
    assert getattr(made, NEW) == {"version": "5.0", "activation_fn": IDENTITY}
    assert not hasattr(made, OLD)
    again = BertConfig.from_dict(made.to_dict())
    assert activation_of(again, "m") == "identity"
