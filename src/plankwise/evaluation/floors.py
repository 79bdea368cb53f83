"""Floors: what a score is worth is its distance from models that know next to nothing.

The majority class, and logistic regression on TF-IDF of words (scikit-learn): 99 % of a baseline that does not clear
them is 99 % of nothing. Of scores the mean of train, ridge regression, and for pairs the words that both texts share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline

from plankwise.evaluation.metrics import Array, Floats, majority_logits
from plankwise.evaluation.score_metrics import are_scores

MAJORITY, TF_IDF = "majority class", "TF-IDF with logistic regression"
MEAN, RIDGE, OVERLAP = "mean of train", "TF-IDF with ridge regression", "words in common"
MAX_ROWS = 50_000  # of train that logistic regression reads
_LEAST = 1e-12  # a probability's, so that its logarithm is finite


def floor_logits(
    texts: Sequence[str], labels: Array, train_texts: Sequence[str], train_labels: Array, classes: int
) -> dict[str, Floats]:
    """Fit the floors on train and return their logits on other texts, [examples, classes], by name.

    Args:
        texts: to predict; of pairs, both texts joined.
        labels: of these.
        train_texts: to learn from; of very many, a part chosen by a fixed seed.
        train_labels: of these, [examples] or [examples, classes].
        classes: how many there are.
    """
    chosen = np.arange(len(train_texts))
    if len(chosen) > MAX_ROWS:
        chosen = np.sort(np.random.default_rng(0).permutation(len(chosen))[:MAX_ROWS])
    known, read = train_labels[chosen], [train_texts[int(each)] for each in chosen]
    constant = majority_logits(labels, train_labels, classes)
    if are_scores(labels):
        ridge = make_pipeline(_words(), Ridge()).fit(read, known)
        return {MEAN: constant, RIDGE: ridge.predict(list(texts)).reshape(-1, 1)}
    found = {MAJORITY: constant}
    fitted = _pipeline(several=labels.ndim == 2).fit(read, known)
    shares = np.clip(fitted.predict_proba(list(texts)), _LEAST, 1 - _LEAST)
    if labels.ndim == 2:
        found[TF_IDF] = np.log(shares) - np.log1p(-shares)
    else:
        found[TF_IDF] = np.full((len(texts), classes), np.log(_LEAST))
        found[TF_IDF][:, fitted.classes_] = np.log(shares)  # a class may be missing in train
    return found


def overlap_scores(pairs: Sequence[tuple[str, str]], train_texts: Sequence[str]) -> Floats:
    """Score pairs of texts by the cosine of their TF-IDF, [examples, 1]: what their words alone say.

    Args:
        pairs: to score.
        train_texts: whose words are counted.
    """
    words = _words().fit(train_texts)
    one, other = (words.transform([pair[side] for pair in pairs]) for side in (0, 1))
    found: Floats = np.asarray(one.multiply(other).sum(axis=1), np.float64).reshape(-1, 1)
    return found


def _words() -> TfidfVectorizer:
    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")


def _pipeline(several: bool) -> Pipeline:
    learner = LogisticRegression(max_iter=1000, C=10.0)
    return make_pipeline(_words(), OneVsRestClassifier(learner) if several else learner)
