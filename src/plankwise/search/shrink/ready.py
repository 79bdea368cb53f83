"""Ready recipes: one chain each, that `shrink --recipe NAME` makes alone instead of climbing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plankwise.core.errors import one_of
from plankwise.search.budget.candidate import Candidate, Steps
from plankwise.search.budget.goal import Goal
from plankwise.search.shrink.ladder import FEWEST_EPOCHS, SPARE, Facts, Ladder, Situation

NAMES = ("fast", "balanced", "extreme")
# What each aims at, over the original in ONNX Runtime fp32; half of the speed where sums of int8 products saturate.
AIMS = {"fast": (0.99, 4.0), "balanced": (0.98, 12.0), "extreme": (0.95, 30.0)}


def aim_of(name: str, *, saturating: bool) -> Goal:
    """Return the budget of a ready recipe.

    Args:
        name: of the recipe.
        saturating: whether this processor lacks 8-bit dot products.

    Raises:
        ModelError: if there is no such recipe.
    """
    retain, speedup = AIMS[one_of(name, NAMES, "ready recipe")]
    return Goal(retain=retain, speedup=speedup / 2 if saturating else speedup)


class Ready(Ladder):
    """A ladder of two rungs: the runtimes, whose figures the recipe needs, and the one chain of a ready recipe."""

    def __init__(self, facts: Facts, name: str) -> None:
        super().__init__(facts)
        self._rungs = (
            self.runtimes,
            self.vocabulary,
            {"fast": self.fast, "balanced": self.balanced}.get(name, self.extreme),
        )

    def fast(self, now: Situation) -> Iterator[Candidate]:
        """Vocabulary, pruning with reconstruction, static int8: nothing is trained."""
        target = self._target(now, layers=self._facts.depth, fewest=1.1)
        steps = self._prefix(now) if target is None else (*self._prefix(now), self._pruned(target, now))
        yield self._candidate("fast", "fast", steps, self._pair(now))

    def balanced(self, now: Situation) -> Iterator[Candidate]:
        """Half of the layers by Theseus, pruning with a short recovery, int8."""
        layers = max(2, self._facts.depth // 2)
        training = self._training(now, 0.5, 0.55, 6.0)
        if training is not None:
            yield from self._narrowed(now, "balanced", layers, self._theseus(layers, training))

    def extreme(self, now: Situation) -> Iterator[Candidate]:
        """A third of the layers by distillation, pruning with recovery, int8."""
        layers = max(2, self._facts.depth // 3)
        training = self._training(now, layers / self._facts.depth, 0.55, 8.0)
        if training is not None:
            yield from self._narrowed(now, "extreme", layers, self._student(layers, training))

    def _narrowed(self, now: Situation, name: str, layers: int, step: dict[str, Any]) -> Iterator[Candidate]:
        before: Steps = (*self._prefix(now), step)
        target = self._target(now, layers=layers, fewest=1.1)
        if target is None:
            yield self._candidate(name, name, before, self._pair(now))
            return
        training = self._training(now, layers / self._facts.depth / target, 0.35, 4.0)
        pruned = self._pruned(target, now)
        if training is not None and training["epochs"] >= FEWEST_EPOCHS:
            pruned |= {"training": training, "teacher": self._teacher()}
        yield self._candidate(name, name, (*before, pruned), self._pair(now))

    def _target(self, now: Situation, *, layers: int, fewest: float) -> float | None:
        """Return how many times smaller pruning has to make what is left; None where that is hardly anything."""
        needed = (self._needed(now) or SPARE * 2.0) * layers / self._facts.depth
        return None if needed < fewest else round(min(5.0, needed), 2)
