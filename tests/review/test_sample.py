"""Which errors are drawn: counts, overlap of both models, and an order that tells nothing."""

from __future__ import annotations

import numpy as np
import pytest

from plankwise.core.errors import DataError
from plankwise.evaluation.comparison import Pair
from plankwise.review.sample import KINDS, MODELS, draw_errors, reviewed_class


def pair(rows: int, wrong: float, shared: float, seed: int = 0) -> Pair:
    """Two models of two classes, each wrong on a share of the rows, and on the same rows on a share of these."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, rows)
    old = draw.random(rows) < wrong
    new = np.where(draw.random(rows) < shared, old, draw.random(rows) < wrong)
    return Pair(labels, np.eye(2)[np.where(old, 1 - labels, labels)], np.eye(2)[np.where(new, 1 - labels, labels)])


def test_as_many_errors_of_each_kind_and_model_are_drawn_as_asked_for() -> None:
    found = draw_errors(pair(2000, 0.3, 0.8), 1, 40, seed=3)
    for model in MODELS:
        for kind in KINDS:
            there, taken = found.counts[model][kind]
            assert taken == 40 < there
            assert sum(error.kind == kind and model in error.models for error in found.errors) == 40
    assert len({(error.row, error.kind) for error in found.errors}) == len(found.errors)


def test_every_drawn_error_is_one() -> None:
    given = pair(500, 0.3, 0.5)
    for error in draw_errors(given, 1, 30, seed=0).errors:
        for model, logits in (("baseline", given.baseline), ("compressed", given.compressed)):
            if model in error.models:
                assert logits[error.row].argmax() != given.labels[error.row]
                assert logits[error.row].argmax() in error.predicted
        is_positive = error.kind == "false positive"
        assert given.labels[error.row] == (0 if is_positive else 1)


def test_an_error_that_both_models_make_is_labelled_once() -> None:
    same = pair(500, 0.3, 1.0)
    found = draw_errors(same, 1, 30, seed=0)
    assert len(found.errors) == 60
    assert all(error.models == MODELS for error in found.errors)
    other = draw_errors(pair(500, 0.3, 0.0), 1, 30, seed=0)
    assert len(other.errors) > 90


def test_where_there_are_fewer_all_are_taken() -> None:
    given = pair(60, 0.2, 0.5)
    found = draw_errors(given, 1, 100, seed=0)
    for model, logits in (("baseline", given.baseline), ("compressed", given.compressed)):
        wrong = int((logits.argmax(axis=1) != given.labels).sum())
        assert sum(taken for _, taken in found.counts[model].values()) == wrong


def test_the_sample_follows_its_seed_and_its_order_tells_no_model() -> None:
    given = pair(2000, 0.3, 0.2)
    one, same, other = (draw_errors(given, 1, 50, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    first = [sum(error.models == (model,) for error in one.errors[: len(one.errors) // 2]) for model in MODELS]
    assert min(first) > 0.3 * sum(first)  # not one model after the other


def test_one_class_of_many_is_reviewed_against_the_others() -> None:
    labels = np.array([0, 1, 2, 2])
    chosen, other = np.eye(3)[[0, 2, 1, 2]], np.eye(3)[[2, 1, 0, 2]]
    found = draw_errors(Pair(labels, chosen, other), 2, 10, seed=0)
    by_row = {error.row: error for error in found.errors}
    assert {row: (error.kind, error.predicted, error.models) for row, error in by_row.items()} == {
        1: ("false positive", (2,), ("baseline",)),
        2: ("false negative", (0, 1), ("baseline", "compressed")),
        0: ("false positive", (2,), ("compressed",)),
    }


def test_the_class_is_the_rarer_of_two_or_has_to_be_named() -> None:
    labels = np.array([0, 1, 1, 1])
    assert reviewed_class(labels, ["a", "b"], None) == 0
    assert reviewed_class(labels, ["a", "b"], "b") == 1
    with pytest.raises(DataError, match=r"--class c: .*a, b"):
        reviewed_class(labels, ["a", "b"], "c")
    with pytest.raises(DataError, match="there are 3 classes; name one with --class: a, b, c"):
        reviewed_class(labels, ["a", "b", "c"], None)
