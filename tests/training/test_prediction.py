"""The warning that a model gives all texts of a split the same answer."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

import tiny
from plankwise.data.task import Task
from plankwise.data.truncation import Truncation
from plankwise.evaluation.metrics import Array, Floats
from plankwise.training.fit import Training
from plankwise.training.on_task import train_on_task
from plankwise.training.prediction import predict, warn_of_one_answer

SINGLE = np.array([0, 1, 0])
SEVERAL = np.array([[1, 0], [0, 1], [1, 1]])
ALWAYS_SECOND = np.array([[0.0, 1.0], [0.0, 2.0], [-1.0, 1.0]])
OPEN = tiny.task()
CLOSED = dataclasses.replace(OPEN, access="credentialed")
END = "; the model tells nothing apart"


@pytest.mark.parametrize(
    ("labels", "logits", "task", "warning"),
    [
        (SINGLE, ALWAYS_SECOND, OPEN, f"all 3 texts get the class '{OPEN.labels[1]}'"),
        (SINGLE, ALWAYS_SECOND, CLOSED, "all 3 texts get the same class"),
        (SEVERAL, ALWAYS_SECOND, OPEN, f"all 3 texts get the same labels, '{OPEN.labels[1]}'"),
        (SEVERAL, -np.ones((3, 2)), OPEN, "all 3 texts get the same labels, none"),
        (SEVERAL, ALWAYS_SECOND, CLOSED, "all 3 texts get the same labels"),
        (SINGLE, ALWAYS_SECOND[::-1] * [[1], [1], [-1]], OPEN, None),
        (np.array([1, 1, 1]), ALWAYS_SECOND, OPEN, None),
    ],
)
def test_one_answer_for_all_texts_is_warned_of(
    labels: Array, logits: Floats, task: Task, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_one_answer(labels, logits, task, "development")
    assert [each.getMessage() for each in caplog.records] == ([f"development: {warning}{END}"] if warning else [])


def test_every_evaluation_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny.model(layers=1)
    model.classifier.weight.data.zero_()
    model.classifier.bias.data[:] = 0
    model.classifier.bias.data[0] = 9.0
    truncation = Truncation(max_length=32)
    job = tiny.job(tmp_path, task=OPEN, truncation=truncation, seed=0)
    caplog.set_level(logging.WARNING)
    train_on_task(model, job, Training(epochs=1, batch_size=32, learning_rate=1e-9, evaluations_per_epoch=3), "x")
    predict(model, tiny.tokenizer(), OPEN, "test", truncation)
    name = OPEN.labels[0]
    expected = [f"{split}: all 32 texts get the class '{name}'{END}" for split in ("development",) * 3 + ("test",)]
    assert [each.getMessage() for each in caplog.records if "apart" in each.getMessage()] == expected
