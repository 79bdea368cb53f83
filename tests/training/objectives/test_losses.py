from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from plankwise.training.objectives.losses import balanced_weights, masked_lm_loss, task_loss

LOGITS = [[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [-3.0, 1.0, 4.0], [0.1, 0.2, -0.3]]
CLASSES = [0, 1, 1, 2]
FLAGS = [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]


def run(
    kind: str, labels: list[Any], weights: list[float] | None = None, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.tensor(LOGITS, dtype=dtype, requires_grad=True)
    return task_loss(kind, weights)(SimpleNamespace(logits=logits), {"labels": torch.tensor(labels)}), logits


def surprise(logits: list[float], label: int) -> float:
    return math.log(sum(math.exp(each) for each in logits)) - logits[label]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.25]])
def test_single_label_loss_by_hand(weights: list[float] | None) -> None:
    factors = [1.0 if weights is None else weights[label] for label in CLASSES]
    surprises = [surprise(row, label) for row, label in zip(LOGITS, CLASSES, strict=True)]
    expected = sum(factor * each for factor, each in zip(factors, surprises, strict=True)) / sum(factors)
    loss, _ = run("single_label", CLASSES, weights)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.25]])
def test_multi_label_loss_by_hand(weights: list[float] | None) -> None:
    cells = []
    for row, flags in zip(LOGITS, FLAGS, strict=True):
        for value, flag, weight in zip(row, flags, weights or [1.0] * 3, strict=True):
            cells.append(-weight * flag * math.log(sigmoid(value)) - (1 - flag) * math.log(sigmoid(-value)))
    loss, _ = run("multi_label", FLAGS, weights)
    assert loss.item() == pytest.approx(sum(cells) / len(cells), rel=1e-6)


@pytest.mark.parametrize(("kind", "labels"), [("single_label", CLASSES), ("multi_label", FLAGS)])
def test_half_precision_logits_are_measured_in_fp32_and_learn(kind: str, labels: list[Any]) -> None:
    loss, logits = run(kind, labels, dtype=torch.bfloat16)
    rounded = logits.detach().float()
    exact = task_loss(kind)(SimpleNamespace(logits=rounded), {"labels": torch.tensor(labels)})
    assert loss.dtype == torch.float32
    assert loss.item() == exact.item()
    torch.autograd.backward(loss)
    assert logits.grad is not None
    assert logits.grad.ne(0).any(dim=1).all()


def test_masked_lm_loss_is_the_mean_surprise() -> None:
    outputs = SimpleNamespace(logits=torch.tensor(LOGITS))
    expected = np.mean([surprise(row, label) for row, label in zip(LOGITS, CLASSES, strict=True)])
    assert masked_lm_loss(outputs, {"labels": torch.tensor(CLASSES)}).item() == pytest.approx(expected, rel=1e-6)


class TestBalancedWeights:
    @pytest.mark.parametrize("classes", [2, 5])
    def test_equal_scikit_learn(self, classes: int) -> None:
        labels = np.random.default_rng(classes).choice(
            classes, 300, p=np.arange(1, classes + 1) / sum(range(classes + 1))
        )
        expected = compute_class_weight("balanced", classes=np.arange(classes), y=labels)
        assert balanced_weights(labels.tolist(), "single_label", classes) == pytest.approx(expected)

    def test_give_every_class_the_same_weight_in_all(self) -> None:
        labels = [0] * 7 + [1] * 2 + [2]
        weights = balanced_weights(labels, "single_label", 3)
        assert [weights[label] * labels.count(label) for label in range(3)] == pytest.approx([10 / 3] * 3)

    def test_of_several_labels_are_negatives_per_positive(self) -> None:
        assert balanced_weights(FLAGS, "multi_label", 3) == pytest.approx([2 / 2, 2 / 2, 3 / 1])

    @pytest.mark.parametrize(("kind", "labels"), [("single_label", [0, 0, 1]), ("multi_label", [[1.0, 0.0, 0.0]] * 2)])
    def test_an_absent_class_stays_finite(self, kind: str, labels: list[Any]) -> None:
        assert np.isfinite(balanced_weights(labels, kind, 3)).all()
