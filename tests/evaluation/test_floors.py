"""Floors that know next to nothing: what they score, and that they learn from train alone."""

from __future__ import annotations

import numpy as np
import pytest

import tiny
from plankwise.evaluation.floors import MAJORITY, TF_IDF, floor_logits
from plankwise.evaluation.metrics import METRICS


def texts_of(count: int, seed: int) -> tuple[list[str], np.ndarray]:
    rows = tiny.rows(count, seed)
    return [str(row["text"]) for row in rows], np.array([tiny.LABELS.index(str(row["label"])) for row in rows])


def test_words_beat_the_majority_where_words_decide() -> None:
    texts, labels = texts_of(100, 1)
    found = floor_logits(texts, labels, *texts_of(300, 0), 2)
    assert list(found) == [MAJORITY, TF_IDF]
    assert METRICS["accuracy"](labels, found[TF_IDF]) > 0.9
    assert METRICS["accuracy"](labels, found[MAJORITY]) < 0.7
    assert np.exp(found[TF_IDF]).sum(axis=1) == pytest.approx(1)


def test_a_class_that_train_lacks_is_never_chosen() -> None:
    texts, labels = texts_of(50, 1)
    train, known = texts_of(100, 0)
    found = floor_logits(texts, labels, train, known * 2, 3)[TF_IDF]  # classes 0 and 2 of three
    assert found.shape == (50, 3)
    assert set(found.argmax(axis=1)) <= {0, 2}


def test_several_labels_have_a_logit_each() -> None:
    texts, labels = texts_of(50, 1)
    train, known = texts_of(100, 0)
    both, flags = np.stack([labels, 1 - labels], axis=1), np.stack([known, 1 - known], axis=1)
    found = floor_logits(texts, both, train, flags, 2)
    assert METRICS["accuracy"](both, found[TF_IDF]) > 0.9
    assert np.isfinite(found[TF_IDF]).all()
