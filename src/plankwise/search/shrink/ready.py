"""Ready recipes: one chain each, that `shrink --recipe NAME` makes alone instead of climbing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from plankwise.core.errors import one_of
from plankwise.search.budget.candidate import Candidate, Steps
from plankwise.search.budget.goal import Goal
from plankwise.search.shrink.ladder import SPARE, Facts, Ladder, Situation, pair_of

NAMES = ("fast", "balanced", "extreme")
USED, DEPTH_PART = 0.95, 0.6  # of the time that trainings have, and the part of it for depth
LOST_AT_MOST = 0.05  # by int8 alone, beyond the budget: where it loses more, less pruning does not help
FIXED = 1.1  # embeddings and head stay: with depth halved, speed came out a tenth below the product of its factors
MakeStep = Callable[[int, dict[str, Any] | None], dict[str, Any]]
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

    def runtimes(self, now: Situation) -> Iterator[Candidate]:
        """The original in int8, the best guess first, until one is faster and nearly keeps the score."""
        if not any(self._is_useful(each, now) for each in now.of("runtime")):
            yield from super().runtimes(now)

    def fast(self, now: Situation) -> Iterator[Candidate]:
        """Vocabulary, pruning with reconstruction, static int8: nothing is trained.

        Where that misses the budget, the same in each faster runtime whose int8 alone loses more: it needs less
        pruning, and what pruning to half costs without training is more than any int8 does. Then, where little of the
        score is missing, the same with the most sensitive projections in fp32.
        """
        first = self._pair(now)
        measured = [each for each in now.of("runtime") if each.certifies and now.keeps(each, LOST_AT_MOST)]
        alone = {pair_of(each): each.speedup.value for each in measured}
        faster = [pair for pair, speed in alone.items() if speed > alone.get(first, math.inf)]
        for pair in (first, *sorted(faster, key=lambda each: alone[each])):
            here = dataclasses.replace(now, pair=pair)
            target = self._target(here, layers=self._facts.depth, fewest=1.1)
            steps = self._prefix(here) if target is None else (*self._prefix(here), self._pruned(target, here))
            yield self._candidate("fast", "fast", steps, pair)
        fallback = {"method": "quantization", "margin": (1 - now.goal.retain) / 2}
        for each in now.of("fast"):
            known = each.candidate
            quantized = known.precision != "int8" or known.steps[-1:] == (fallback,)
            if not quantized and not now.keeps(each) and now.keeps(each, LOST_AT_MOST):
                yield self._candidate("fast", "fast with fallback", (*known.steps, fallback), pair_of(each))

    def balanced(self, now: Situation) -> Iterator[Candidate]:
        """Half of the layers by Theseus, pruning with a short recovery, int8."""
        layers = max(2, self._facts.depth // 2)
        yield from self._narrowed(now, "balanced", layers, self._theseus, share=0.5, most=6.0)

    def extreme(self, now: Situation) -> Iterator[Candidate]:
        """A third of the layers by distillation, pruning with recovery, int8."""
        layers = max(2, self._facts.depth // 3)
        yield from self._narrowed(now, "extreme", layers, self._student, share=layers / self._facts.depth, most=8.0)

    def _narrowed(
        self, now: Situation, name: str, layers: int, shallow: MakeStep, *, share: float, most: float
    ) -> Iterator[Candidate]:
        """Make a chain of depth and width whose trainings fill the time that everything else leaves."""
        target = self._target(now, layers=layers, fewest=1.1)
        width = None if target is None else self._pruned(target, now)
        prefix = self._prefix(now, trained=True)
        bare: Steps = tuple(each for each in (*prefix, shallow(layers, None), width) if each is not None)
        rest = self._facts.costs.estimate(self._candidate(name, name, bare, self._pair(now)), ())
        free = dataclasses.replace(now, left=USED * (now.left - rest))
        training = self._training(free, share, 1.0 if width is None else DEPTH_PART, most)
        if training is None:
            return
        steps: Steps = (*prefix, shallow(layers, training))
        if width is not None and target is not None:
            recovery = self._training(free, layers / self._facts.depth / target, 1 - DEPTH_PART, 4.0)
            steps += ({**width, "training": recovery, "teacher": self._teacher()} if recovery else width,)
        yield self._candidate(name, name, steps, self._pair(now))

    def _target(self, now: Situation, *, layers: int, fewest: float) -> float | None:
        """Return how many times smaller pruning has to make what is left; None where that is hardly anything."""
        share = layers / self._facts.depth
        needed = (self._needed(now) or SPARE * 2.0) * (share if share == 1.0 else FIXED * share)
        return None if needed < fewest else round(min(5.0, needed), 2)
