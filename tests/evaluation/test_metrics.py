"""Every metric against scikit-learn, and on the edges where a class is missing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.metrics import log_loss as sklearn_log_loss

from plankwise.data.metric_names import OF_CLASSES, OF_SCORES
from plankwise.evaluation.metrics import (
    METRICS,
    Array,
    Floats,
    count,
    decide,
    decide_flags,
    log_loss,
    majority_logits,
    probabilities,
)


def single(classes: int, seed: int, size: int = 200) -> tuple[Array, Floats]:
    """Skewed labels and logits that are better than chance."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(classes, size, p=np.arange(1, classes + 1) / sum(range(classes + 1)))
    labels[:classes] = np.arange(classes)
    return labels, draw.normal(size=(size, classes)) + 0.8 * np.eye(classes)[labels]


def several(classes: int, seed: int, size: int = 200) -> tuple[Array, Floats]:
    draw = np.random.default_rng(seed)
    labels = (draw.random((size, classes)) < 0.3).astype(np.float32)
    return labels, draw.normal(size=(size, classes)) + labels - 0.5


def decisions(labels: Array, logits: Array) -> Array:
    return (logits > 0).astype(int) if labels.ndim == 2 else logits.argmax(axis=1)


def thresholded(labels: Array, logits: Array) -> dict[str, float]:
    """Scikit-learn's scores of the decisions, over every class whether it occurs or not."""
    guess, classes = decisions(labels, logits), list(range(logits.shape[1]))
    settings = {"labels": classes, "zero_division": 0}
    precision, recall = (score(labels, guess, average="macro", **settings) for score in (precision_score, recall_score))
    return {
        "accuracy": accuracy_score(labels, guess),
        "macro_f1": f1_score(labels, guess, average="macro", **settings),
        "micro_f1": f1_score(labels, guess, average="micro", **settings),
        "germeval_f1": 2 * precision * recall / (precision + recall),
    }


def ranked(labels: Array, logits: Array) -> dict[str, float]:
    if labels.ndim == 1 and logits.shape[1] == 2:
        flags, scores = labels, softmax(logits, axis=1)[:, 1]
    elif labels.ndim == 1:
        flags, scores = np.eye(logits.shape[1])[labels], softmax(logits, axis=1)
    else:
        flags, scores = labels, expit(logits)
    return {
        "auroc": roc_auc_score(flags, scores, average="macro"),
        "average_precision": average_precision_score(flags, scores, average="macro"),
    }


Make = Callable[[int, int], tuple[Array, Floats]]
DATA = [(single, 2), (single, 5), (several, 2), (several, 4)]


@pytest.mark.parametrize(("make", "classes"), DATA)
@pytest.mark.parametrize("seed", range(3))
def test_every_metric_equals_scikit_learn(make: Make, classes: int, seed: int) -> None:
    labels, logits = make(classes, seed)
    expected = {**thresholded(labels, logits), **ranked(labels, logits)}
    assert {name: METRICS[name](labels, logits) for name in OF_CLASSES} == pytest.approx(expected, abs=1e-12)


def test_multi_class_auroc_is_one_against_the_rest() -> None:
    labels, logits = single(4, 0)
    expected = roc_auc_score(labels, softmax(logits, axis=1), multi_class="ovr", average="macro")
    assert METRICS["auroc"](labels, logits) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["macro_f1", "germeval_f1", "micro_f1", "accuracy"])
def test_a_class_that_nobody_is_or_is_called_counts_as_zero(name: str) -> None:
    labels, logits = single(3, 1)
    logits = np.hstack([logits, np.full((len(logits), 1), -99.0)])
    assert METRICS[name](labels, logits) == pytest.approx(thresholded(labels, logits)[name])


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_ranks_skip_a_class_without_both_kinds(name: str) -> None:
    labels, logits = several(3, 1)
    wider = np.hstack([labels, np.zeros((len(labels), 1))])
    more = np.hstack([logits, logits[:, :1]])
    assert METRICS[name](wider, more) == pytest.approx(METRICS[name](labels, logits))


class TestOfficialF:
    LABELS, LOGITS = np.array([0, 0, 0, 1]), np.eye(2)[[0, 0, 1, 1]]

    def test_by_hand(self) -> None:
        precision, recall = (1 + 1 / 2) / 2, (2 / 3 + 1) / 2
        expected = 2 * precision * recall / (precision + recall)
        assert METRICS["germeval_f1"](self.LABELS, self.LOGITS) == pytest.approx(expected) == pytest.approx(15 / 19)

    def test_is_not_macro_f1(self) -> None:
        assert METRICS["macro_f1"](self.LABELS, self.LOGITS) == pytest.approx((4 / 5 + 2 / 3) / 2)
        labels, logits = single(3, 2)
        assert abs(METRICS["germeval_f1"](labels, logits) - METRICS["macro_f1"](labels, logits)) > 1e-3


def test_nothing_predicted_scores_zero_and_never_warns() -> None:
    labels, logits = several(3, 0)[0], np.full((200, 3), -1.0)
    assert [METRICS[name](labels, logits) for name in ("macro_f1", "micro_f1", "germeval_f1")] == [0, 0, 0]


@pytest.mark.parametrize(("make", "classes"), DATA)
def test_counts_add_up(make: Make, classes: int) -> None:
    labels, logits = make(classes, 0)
    counts = count(labels, logits)
    assert counts.shape == (200, 3 * classes + 2)
    flags = np.eye(classes)[labels] if labels.ndim == 1 else labels
    guess = decisions(labels, logits)
    predicted = np.eye(classes)[guess] if labels.ndim == 1 else guess
    by_hand = [(flags * predicted).sum(0), predicted.sum(0), flags.sum(0), [accuracy_score(labels, guess) * 200, 200]]
    assert counts.sum(axis=0) == pytest.approx(np.concatenate(by_hand))


@pytest.mark.parametrize("name", [name for name in OF_CLASSES if METRICS[name].reduce is not None])
@pytest.mark.parametrize(("make", "classes"), DATA)
def test_many_totals_reduce_as_each_one_does(name: str, make: Make, classes: int) -> None:
    labels, logits = make(classes, 0)
    groups = np.array_split(np.arange(200), 4)
    reduce = METRICS[name].reduce
    assert reduce is not None
    together = reduce(np.stack([count(labels[rows], logits[rows]).sum(0) for rows in groups]))
    assert together.shape == (4,)
    assert together == pytest.approx([METRICS[name](labels[rows], logits[rows]) for rows in groups])


def test_decisions_and_probabilities() -> None:
    logits = np.array([[0.0, 2.0, -1.0], [3.0, -800.0, 800.0]])
    assert decide(logits).tolist() == [1, 2]
    assert decide_flags(logits).tolist() == [[0, 1, 0], [1, 0, 1]]
    assert probabilities(logits, multi_label=False).sum(axis=1) == pytest.approx([1, 1])
    assert probabilities(logits, multi_label=True)[0] == pytest.approx([0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))])
    assert (decide_flags(logits) == (probabilities(logits, multi_label=True) > 0.5)).all()


class TestMajority:
    def test_is_that_of_train_even_where_test_differs(self) -> None:
        labels, train = np.array([0, 0, 0, 1]), np.array([1, 1, 0, 2])
        guess = majority_logits(labels, train)
        assert guess.shape == (4, 3)
        assert decide(guess).tolist() == [1] * 4
        assert METRICS["accuracy"](labels, guess) == 0.25
        assert METRICS["macro_f1"](labels, guess) == pytest.approx((2 / 5) / 3)

    def test_counts_a_class_that_never_occurs_as_zero(self) -> None:
        """As the model's own score does, which has a logit for it."""
        labels = np.array([0, 0, 1])
        guess = majority_logits(labels, labels, classes=4)
        expected = f1_score(labels, [0, 0, 0], labels=range(4), average="macro", zero_division=0)
        assert METRICS["macro_f1"](labels, guess) == pytest.approx(expected)

    def test_of_several_labels_are_those_above_one_half(self) -> None:
        train = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.float32)
        guess = majority_logits(train[:2], train)
        assert decide_flags(guess).tolist() == [[1, 0, 0]] * 2

    def test_ranks_by_chance(self) -> None:
        labels, _ = single(2, 0)
        guess = majority_logits(labels, labels)
        assert METRICS["auroc"](labels, guess) == 0.5
        assert METRICS["average_precision"](labels, guess) == pytest.approx(labels.mean())


def test_log_loss_agrees_with_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(50, 3)), draw.integers(0, 3, 50)
    assert log_loss(labels, logits) == pytest.approx(sklearn_log_loss(labels, softmax(logits, axis=-1)))
    flags = draw.integers(0, 2, (50, 3))
    alone = [sklearn_log_loss(flags[:, at], expit(logits[:, at])) for at in range(3)]
    assert log_loss(flags, logits) == pytest.approx(np.mean(alone))
    assert np.isfinite(log_loss(np.array([0]), np.array([[-1e4, 1e4]])))


def test_every_metric_is_for_classes_or_for_scores() -> None:
    assert {*OF_CLASSES, *OF_SCORES} == set(METRICS)
