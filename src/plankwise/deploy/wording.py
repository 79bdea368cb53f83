"""What messages call the answers of a model: probabilities, or scores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """What messages call an answer.

    Attributes:
        one: with its article.
        several: the same in the plural.
        unit: after a change of it.
        same: what two models that agree have in common.
    """

    one: str
    several: str
    unit: str
    same: str


OF_LABELS = Wording("a probability", "probabilities", "", "labels")
OF_SCORES = Wording("a score", "scores", " of their spread", "order")
