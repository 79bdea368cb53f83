"""What to try next: the rungs of the ladder from cheap to dear, each built on what the rungs below it have shown.

Runtime and int8 first, since they cost a minute; then the vocabulary; then structured pruning without training; then
int8 with the most sensitive layers in fp32; then what trains: recovery after pruning, depth by Theseus and after it
width, and at last a student of a third of the layers. Order and interaction: `docs/guide/shrink.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from plankwise.search.budget.candidate import Candidate, Deployment, Outcome, Steps
from plankwise.search.budget.goal import Goal
from plankwise.search.shrink.costs import Costs

LARGE_TABLE = 0.4  # share of the parameters that word embeddings have in multilingual models, not in others
SPARE = 1.1  # a candidate aims at a little more speed than is asked for: its lower bound counts
FREE_TARGETS, FREE_TRIES = (1.2, 3.0), 4  # of pruning without training
TOLERATED = 0.01  # that a rung may lose beyond the budget and still be built on
REPAIRED = 0.03  # that trimming the vocabulary may lose where the model is trained afterwards, with fewer tokens
FEWEST_EPOCHS = 0.5
RECOVERY_EPOCHS, DEPTH_EPOCHS = 3.0, 6.0
RECOVERY_SHARE, DEPTH_SHARE = 0.4, 0.5  # of the time left


VOCABULARY: Steps = ({"method": "vocabulary"},)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the ladder knows of the model, the data and the machine.

    Attributes:
        depth: layers of the original.
        width: of its hidden states.
        table_share: share of its parameters in word embeddings.
        shape: texts and tokens of a usual batch.
        labelled: whether rows of train have labels of their own, and not only the original's predictions.
        pairs: runtimes and precisions to try, the best guess first; more than one unless the processor is another.
        latency: whether tables of latencies may be measured: they hold for this machine only.
        costs: of work on this machine.
        vocabulary: the step that trims it, by the texts that there are.
    """

    depth: int
    width: int
    table_share: float
    shape: tuple[int, int]
    labelled: bool
    pairs: tuple[Deployment, ...]
    latency: bool
    costs: Costs
    vocabulary: Steps = VOCABULARY


@dataclass(frozen=True)
class Situation:
    """Where a search stands.

    Attributes:
        goal: the budget.
        outcomes: of all candidates so far.
        tried: steps with runtime and precision of all candidates, also those that failed.
        left: seconds.
        pair: runtime and precision to build on; by default the fastest that nearly keeps the score.
    """

    goal: Goal
    outcomes: Sequence[Outcome]
    tried: frozenset[str]
    left: float
    pair: Deployment | None = None

    def of(self, rung: str) -> list[Outcome]:
        """Return what a rung has shown."""
        return [each for each in self.outcomes if each.candidate.rung == rung]

    def keeps(self, outcome: Outcome, spare: float = 0.0) -> bool:
        """Return whether a candidate keeps what the budget asks for, up to `spare`."""
        return outcome.retained.low >= self.goal.retain - spare


class Ladder:
    """Proposes candidates.

    Args:
        facts: of the model, the data and the machine.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._rungs: tuple[Callable[[Situation], Iterator[Candidate]], ...] = (
            self.runtimes,
            self.vocabulary,
            self.pruning,
            self.fallback,
            self.recovery,
            self.depth,
            self.deeper,
        )

    def proposals(self, now: Situation) -> Iterator[Candidate]:
        """Yield what to try next, the cheapest first; what was tried before is left out."""
        for rung in self._rungs:
            for candidate in rung(now):
                if signature(candidate) not in now.tried:
                    yield candidate

    def runtimes(self, now: Situation) -> Iterator[Candidate]:
        """The original in int8, in every runtime: what compression has to beat; in fp32 where int8 is of no use."""
        useful = any(each.candidate.precision == "int8" and self._is_useful(each, now) for each in now.of("runtime"))
        for pair in self._facts.pairs:
            if pair[1] == "int8" or not useful:
                yield self._candidate("runtime", "original", (), pair)

    def vocabulary(self, now: Situation) -> Iterator[Candidate]:
        """Rows of the word embeddings that no text needs: saves size, not time; for large tables only."""
        if self._facts.table_share > LARGE_TABLE or now.goal.max_size_bytes is not None:
            yield self._candidate("vocabulary", "vocabulary", self._facts.vocabulary, self._pair(now))

    def pruning(self, now: Situation) -> Iterator[Candidate]:
        """Heads and neurons by a table of latencies, with reconstruction and without training."""
        target = self._free_target(now)
        if target is not None:
            steps = (*self._prefix(now), self._pruned(target, now))
            yield self._candidate("pruning", f"pruning {target:g}×", steps, self._pair(now))

    def fallback(self, now: Situation) -> Iterator[Candidate]:
        """Static int8 with the most sensitive projections in fp32, where plain int8 loses too much."""
        runtime, precision = self._pair(now)
        plain = [each for each in now.of("runtime") if each.candidate.precision == "int8"]
        if any(not now.keeps(each) for each in plain):
            pair = (runtime if precision == "int8" else plain[0].candidate.runtime, "int8")
            steps = (*self._prefix(now), {"method": "quantization", "margin": (1 - now.goal.retain) / 2})
            yield self._candidate("fallback", "int8 with fallback", steps, pair)

    def recovery(self, now: Situation) -> Iterator[Candidate]:
        """Pruning, then a short training with the original as teacher."""
        for factor in (1.0, 1.4):
            target = round(min(4.0, max(1.5, factor * (self._needed(now) or 2.0))), 2)
            training = self._training(now, 1 / target, RECOVERY_SHARE, RECOVERY_EPOCHS)
            if training is not None:
                step = {**self._pruned(target, now), "training": training, "teacher": self._teacher()}
                name = f"pruning {target:g}× and recovery"
                yield self._candidate("recovery", name, (*self._prefix(now, trained=True), step), self._pair(now))

    def depth(self, now: Situation) -> Iterator[Candidate]:
        """Half of the layers by Theseus, then less width."""
        made = [each.candidate.steps for each in now.of("depth")]
        before = made[0][: len(self._prefix(now, trained=True)) + 1] if made else None
        yield from self._shallower(now, "depth", self._facts.depth // 2, before)

    def deeper(self, now: Situation) -> Iterator[Candidate]:
        """A third of the layers by distillation, then less width: for large speed-ups."""
        if self._facts.depth >= 6:
            made = [each.candidate.steps for each in now.of("deeper")]
            before = made[0][: len(self._prefix(now, trained=True)) + 1] if made else None
            yield from self._shallower(now, "deeper", max(2, self._facts.depth // 3), before)

    def _shallower(self, now: Situation, rung: str, layers: int, before: Steps | None) -> Iterator[Candidate]:
        if layers < 2:
            return
        theseus = rung == "depth"
        if before is None:
            share = 0.5 if theseus else layers / self._facts.depth
            training = self._training(now, share, DEPTH_SHARE, DEPTH_EPOCHS)
            if training is None:
                return
            step = self._theseus(layers, training) if theseus else self._student(layers, training)
            before = (*self._prefix(now, trained=True), step)
            shallow = self._candidate(rung, f"{layers} layers", before, self._pair(now))
            yield shallow
            if signature(shallow) in now.tried:  # it failed, and so would what is built on it
                return
        for factor in (1.0, 1.4):
            left = (self._needed(now) or 3.0) * layers / self._facts.depth
            target = round(min(4.0, max(1.3, factor * left)), 2)
            share = layers / self._facts.depth / target
            training = self._training(now, share, RECOVERY_SHARE, RECOVERY_EPOCHS)
            if training is not None:
                pruned = {**self._pruned(target, now), "training": training, "teacher": self._teacher()}
                name = f"{layers} layers, pruning {target:g}×"
                yield self._candidate(rung, name, (*before, pruned), self._pair(now))

    def _pair(self, now: Situation) -> Deployment:
        """Return the fastest runtime and precision that keeps the score of the original, or nearly."""
        if now.pair is not None:
            return now.pair
        found = [each for each in now.of("runtime") if self._is_useful(each, now)]
        if not found:
            return self._facts.pairs[0]
        best = max(found, key=lambda each: each.speedup.value).candidate
        return best.runtime, best.precision

    def _is_useful(self, outcome: Outcome, now: Situation) -> bool:
        """Return whether a runtime is no slower than the reference and nearly keeps the score."""
        return outcome.certifies and outcome.speedup.value > 0.95 and now.keeps(outcome, 3 * TOLERATED)

    def _prefix(self, now: Situation, *, trained: bool = False) -> Steps:
        """Return the vocabulary step, if trimming did no harm, or none that the training after it cannot mend."""
        spare = REPAIRED if trained else TOLERATED
        for each in now.of("vocabulary"):
            beside = [one.retained.value for one in now.of("runtime") if pair_of(one) == pair_of(each)]
            if each.retained.value >= max([now.goal.retain, *beside]) - spare:
                return self._facts.vocabulary
        return ()

    def _needed(self, now: Situation) -> float | None:
        """Return how many times fewer operations are needed beyond what runtime and precision give."""
        if now.goal.speedup is None:
            return None
        pair = self._pair(now)
        plain = [each.speedup.value for each in now.of("runtime") if pair_of(each) == pair]
        return SPARE * now.goal.speedup / max([1.0, *plain])

    def _free_target(self, now: Situation) -> float | None:
        """Return the next target of pruning without training: more while the score is kept, less where it is lost."""
        tried = {each.candidate.steps[-1]["target"]: now.keeps(each) for each in now.of("pruning")}
        low, high = FREE_TARGETS
        if not tried:
            return round(min(high, max(low, self._needed(now) or 1.5)), 2)
        kept, lost = [each for each, kept in tried.items() if kept], [each for each, kept in tried.items() if not kept]
        below, above = max(kept, default=1.0), min(lost, default=None)
        target = below * 1.33 if above is None else (below + above) / 2
        ended = len(tried) >= FREE_TRIES or target > high or target < low or (above or 2 * below) / below < 1.15
        return None if ended else round(target, 2)

    def _pruned(self, target: float, now: Situation) -> dict[str, Any]:
        step: dict[str, Any] = {"method": "pruning", "target": target}
        if self._facts.latency:
            runtime, precision = self._pair(now)
            measured = {"measure": "latency", "latency_shape": list(self._facts.shape)}
            step |= {**measured, "latency_runtime": runtime, "latency_precision": precision}
        return step

    def _theseus(self, layers: int, training: dict[str, Any] | None) -> dict[str, Any]:
        return {"method": "theseus", "modules": layers, "training": training, "teacher": self._teacher()}

    def _student(self, layers: int, training: dict[str, Any] | None) -> dict[str, Any]:
        student = {"layers": layers, "keep": "bottom"}
        return {"method": "distillation", "student": student, "training": training, "teacher": self._teacher()}

    def _teacher(self) -> dict[str, Any]:
        """The original teaches; labels of the rows have a part only where they are not its own predictions."""
        task = 0.3 if self._facts.labelled else 0.0
        return {"source": "baseline", "task": task, "logits": 1.0 - task}

    def _training(self, now: Situation, cost: float, share: float, most: float) -> dict[str, Any] | None:
        """Return settings of a training that fits into its share of the time left; None if it would be too short."""
        epochs = self._facts.costs.epochs_within(share * now.left, cost, most)
        if epochs < FEWEST_EPOCHS:
            return None
        rate = 1e-4 if self._facts.width <= 512 else 5e-5 if self._facts.width <= 768 else 2e-5
        return {"epochs": epochs, "learning_rate": rate}

    def _candidate(self, rung: str, name: str, steps: Steps, pair: Deployment) -> Candidate:
        runtime, precision = pair
        return Candidate(
            name=f"{name}, {runtime} {precision}", rung=rung, steps=steps, runtime=runtime, precision=precision
        )


def signature(candidate: Candidate) -> str:
    """Return what makes a candidate different from others, however long its training is."""
    steps = [{key: value for key, value in step.items() if key != "training"} for step in candidate.steps]
    return repr((steps, candidate.runtime, candidate.precision))


def pair_of(outcome: Outcome) -> Deployment:
    """Return runtime and precision of what was measured."""
    return outcome.candidate.runtime, outcome.candidate.precision
