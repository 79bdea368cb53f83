"""A baseline without an encoder: TF-IDF and logistic regression."""

from __future__ import annotations

from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from plankwise.data.task import DEVELOPMENT, TEST, TRAIN, Task
from plankwise.evaluation.metrics import METRICS, Array

STRENGTHS = (1.0, 4.0, 16.0, 64.0)


def bag_of_words(task: Task) -> dict[str, Any]:
    """Score words and pairs of words on the test split; the development split chooses the regularization."""
    found = []
    for strength in STRENGTHS:
        words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        model = make_pipeline(words, LogisticRegression(C=strength, max_iter=2000))
        model.fit(task.splits[TRAIN]["text"][:], task.splits[TRAIN]["label"][:])
        found.append((_scores(model, task, DEVELOPMENT)[task.metrics[0]], strength, model))
    _, strength, best = max(found, key=lambda each: each[0])
    return {
        "scores": _scores(best, task, TEST),
        "inverse_regularization": strength,
        "features": len(best[0].vocabulary_),
    }


def _scores(model: Any, task: Task, split: str) -> dict[str, float]:
    rows = task.splits[split].with_format("numpy")
    labels: Array = rows["label"][:]
    logits = model.predict_log_proba(task.splits[split]["text"][:])
    return {name: METRICS[name](labels, logits) for name in task.metrics}
