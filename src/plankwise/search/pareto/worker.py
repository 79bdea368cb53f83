"""A worker of a search: short trainings first, then the survivors in full, together with all other workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import optuna

from plankwise.core.progress import duration
from plankwise.search.budget.candidate import Candidate, Failure, Outcome
from plankwise.search.budget.goal import Goal
from plankwise.search.pareto.fidelity import full_seconds, survivors
from plankwise.search.pareto.plan import Parameters, SearchPlan
from plankwise.search.pareto.rung import RETRIES, Rung
from plankwise.search.pareto.sampler import storage_with_heartbeat

logger = logging.getLogger(__name__)
HEARTBEAT_S, GRACE_S, POLL_S = 10, 60, 2.0
PROXY_TIME = 0.5  # share of the time for short trainings, where trainings in full are to follow
MIN_TIME = 0.97  # share of the time after which nothing more is begun
MeasureCandidate = Callable[[Candidate], Outcome | Failure]


@dataclass(frozen=True)
class Deadline:
    """The time that one worker may spend.

    Attributes:
        seconds: from the start; None for any time.
        now: returns seconds.
        begun: when the worker started.
    """

    seconds: float | None
    now: Callable[[], float] = time.monotonic
    begun: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self.now() - self.begun

    def allows(self, share: float, cost: float = 0.0) -> bool:
        """Return whether less than this share of the time would be spent after so many seconds more."""
        return self.seconds is None or self.spent + cost < share * self.seconds


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process of a search.

    Attributes:
        plan: what varies.
        goal: the budget.
        measure: makes and measures a candidate.
        storage: a URL of SQLAlchemy, shared by all workers.
        trials: settings that all workers draw together; None for as many as the time allows.
        deadline: of this worker.
        heartbeat_s: seconds between two heartbeats.
        grace_s: seconds without a heartbeat, after which another worker counts as dead.
        poll_s: seconds between two looks at what other workers do.
    """

    plan: SearchPlan
    goal: Goal
    measure: MeasureCandidate
    storage: str
    trials: int | None
    deadline: Deadline
    heartbeat_s: int = HEARTBEAT_S
    grace_s: int = GRACE_S
    poll_s: float = POLL_S

    def rungs(self) -> tuple[Rung, Rung]:
        """Open both rungs in the storage: short trainings, and full ones."""
        storage = storage_with_heartbeat(
            self.storage, heartbeat_s=self.heartbeat_s, grace_s=self.grace_s, retries=RETRIES
        )
        return self._rung(storage, proxy=True), self._rung(storage, proxy=False)

    def run(self) -> tuple[Rung, Rung]:
        """Run trials until none is left for any worker, or the time is spent; return both rungs."""
        proxies, full = self.rungs()
        share = PROXY_TIME if self.plan.has_proxies else MIN_TIME
        self._climb(proxies, lambda: self.deadline.allows(share))
        full.queue(self._promoted(proxies))
        self._climb(full, lambda: self.deadline.allows(MIN_TIME))
        return proxies, full

    def _climb(self, rung: Rung, may_begin: Callable[[], bool]) -> None:
        waited = False
        while True:
            rung.requeue_dead()
            if may_begin() and rung.has_work():
                rung.run_next()
            elif rung.running == 0:
                return
            else:
                if not waited:
                    logger.info("waiting for %d trials of other workers", rung.running)
                waited = True
                time.sleep(self.poll_s)

    def _promoted(self, proxies: Rung) -> list[Parameters]:
        """Return the settings that are trained in full, the most promising first, as far as the time allows."""
        measured = proxies.measured
        chosen: list[Parameters] = []
        left_out, cost = 0, 0.0
        for proxy in survivors(self.goal, [outcome for _, outcome in measured]):
            setting = next(setting for setting, outcome in measured if outcome is proxy)
            cost += full_seconds(proxy, self.plan.candidate(setting, proxy=False).steps)
            if not chosen or self.deadline.allows(1.0, cost):
                chosen.append(setting)
            else:
                left_out += 1
        if left_out:
            logger.warning(
                "%d of %d survivors are not trained in full: they would take %s and the time is spent",
                *(left_out, left_out + len(chosen), duration(cost)),
            )
        return chosen

    def _rung(self, storage: optuna.storages.RDBStorage, *, proxy: bool) -> Rung:
        return Rung(
            self.plan,
            storage,
            self.plan.name if proxy else f"{self.plan.name}, in full",
            goal=self.goal,
            measure=lambda setting: self.measure(self.plan.candidate(setting, proxy=proxy)),
            draws=self.trials if proxy else 0,
            grace_s=self.grace_s,
        )
