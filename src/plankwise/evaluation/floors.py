"""Floors: what a score is worth is its distance from models that know next to nothing.

The majority class, and logistic regression on TF-IDF of words (scikit-learn): 99 % of a baseline that does not clear
them is 99 % of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline

from plankwise.evaluation.metrics import Array, Floats, majority_logits

MAJORITY, TF_IDF = "majority class", "TF-IDF with logistic regression"
MAX_ROWS = 50_000  # of train that logistic regression reads
_LEAST = 1e-12  # a probability's, so that its logarithm is finite


def floor_logits(
    texts: Sequence[str], labels: Array, train_texts: Sequence[str], train_labels: Array, classes: int
) -> dict[str, Floats]:
    """Fit both floors on train and return their logits on other texts, [examples, classes], by name.

    Args:
        texts: to predict; of pairs, both texts joined.
        labels: of these.
        train_texts: to learn from; of very many, a part chosen by a fixed seed.
        train_labels: of these, [examples] or [examples, classes].
        classes: how many there are.
    """
    found = {MAJORITY: majority_logits(labels, train_labels, classes)}
    chosen = np.arange(len(train_texts))
    if len(chosen) > MAX_ROWS:
        chosen = np.sort(np.random.default_rng(0).permutation(len(chosen))[:MAX_ROWS])
    known = train_labels[chosen]
    fitted = _pipeline(several=labels.ndim == 2).fit([train_texts[int(each)] for each in chosen], known)
    shares = np.clip(fitted.predict_proba(list(texts)), _LEAST, 1 - _LEAST)
    if labels.ndim == 2:
        found[TF_IDF] = np.log(shares) - np.log1p(-shares)
    else:
        found[TF_IDF] = np.full((len(texts), classes), np.log(_LEAST))
        found[TF_IDF][:, fitted.classes_] = np.log(shares)  # a class may be missing in train
    return found


def _pipeline(several: bool) -> Pipeline:
    learner = LogisticRegression(max_iter=1000, C=10.0)
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    return make_pipeline(words, OneVsRestClassifier(learner) if several else learner)
