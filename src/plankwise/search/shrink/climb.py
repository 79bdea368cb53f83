"""The climb: candidate after candidate, until the budget is met, the time is spent, or nothing is left to try."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from plankwise.core.progress import duration
from plankwise.search.budget.candidate import Candidate, Failure, Outcome
from plankwise.search.budget.evaluation import Evaluator, Original
from plankwise.search.budget.goal import Goal, shown
from plankwise.search.budget.log import CandidateLog
from plankwise.search.shrink.clock import Clock
from plankwise.search.shrink.costs import Costs, correction
from plankwise.search.shrink.ladder import Ladder, Situation, signature

logger = logging.getLogger(__name__)
MET, OUT_OF_TIME, EXHAUSTED = "the budget is met", "the time is spent", "nothing is left to try"


@dataclass
class Progress:
    """What a display shows of a climb.

    Attributes:
        goal: the budget.
        outcomes: in the order in which they were measured.
        failures: candidates that could not be made.
        current: what is being worked on.
        spent: seconds.
        left: seconds.
    """

    goal: Goal
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    current: Candidate | None = None
    spent: float = 0.0
    left: float = 0.0


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Climb:
    """One search up the ladder.

    Attributes:
        goal: the budget.
        ladder: proposes candidates.
        costs: estimates them.
        evaluator: measures them.
        original: what they are compared with.
        log: of all candidates.
        clock: counts the seconds that were spent.
        seconds: that may be spent.
        reserve: seconds of them for the end.
        on_progress: called before and after each candidate.
    """

    goal: Goal
    ladder: Ladder
    costs: Costs
    evaluator: Evaluator
    original: Original
    log: CandidateLog
    clock: Clock
    seconds: float
    reserve: float
    on_progress: ProgressCallback = lambda progress: None

    def run(self) -> str:
        """Climb, and return why the climb ended."""
        for known in self.log.candidates:
            self.evaluator.remember(known.steps)
        pending = self.log.pending
        if pending is not None:
            logger.info("continuing with %s", pending.name)
            self._measure(pending)
        while True:
            if self._is_done():
                return MET
            candidate, cheapest = self._next()
            if candidate is None:
                return EXHAUSTED if cheapest is None else OUT_OF_TIME
            self._measure(candidate)

    @property
    def left(self) -> float:
        """Seconds that candidates may still take."""
        return self.seconds - self.reserve - self.clock.spent

    def _is_done(self) -> bool:
        """Return whether the budget is met; one without speed or size has no end, since faster is always better."""
        ends = self.goal.speedup is not None or self.goal.max_size_bytes is not None
        return ends and any(self.goal.is_met(each) for each in self.log.outcomes)

    def _next(self) -> tuple[Candidate | None, float | None]:
        """Return the first proposal that fits into the time left, and the cost of the cheapest that does not."""
        tried = frozenset(map(signature, self.log.candidates))
        factor, cheapest = self._correction(), None
        # Trainings are made as long as there is time, by the same estimate that decides whether they fit.
        now = Situation(self.goal, self.log.outcomes, tried, self.left / factor)
        for candidate in self.ladder.proposals(now):
            cost = factor * self.costs.estimate(candidate, self.log.candidates)
            if cost <= self.left:
                logger.info("next: %s, about %s of %s left", candidate.name, duration(cost), duration(self.left))
                return candidate, cheapest
            cheapest = cost if cheapest is None else min(cost, cheapest)
        if cheapest is not None:
            logger.info("the next candidate would take about %s, %s are left", duration(cheapest), duration(self.left))
        return None, cheapest

    def _correction(self) -> float:
        found: list[Outcome | Failure] = [*self.log.outcomes, *self.log.failures]
        known = self.log.candidates
        estimated = [self.costs.estimate(each.candidate, known[: known.index(each.candidate)]) for each in found]
        return correction(estimated, found)

    def _measure(self, candidate: Candidate) -> None:
        self.log.propose(candidate)
        self._report(candidate)
        found = self.evaluator.measure(candidate, self.original)
        self.log.finish(found)
        if isinstance(found, Failure):
            logger.warning("%s is left out: %s", candidate.name, found.fault)
        else:
            logger.info("%s: %s", candidate.name, shown(found))
        self._report(None)

    def _report(self, current: Candidate | None) -> None:
        self.on_progress(
            Progress(self.goal, self.log.outcomes, self.log.failures, current, self.clock.spent, max(0.0, self.left))
        )
