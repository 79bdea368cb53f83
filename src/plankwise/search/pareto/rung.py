"""One rung of a search in Optuna's storage: its settings, shared by any number of workers, each measured once.

Optuna writes the heartbeats and queues trials of dead workers again (`docs/decisions/`). A setting that another trial
with a lower number has, or had, is dropped before anything is trained.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from plankwise.core.progress import duration
from plankwise.core.seeds import mix_seed
from plankwise.search.budget.candidate import Failure, Outcome
from plankwise.search.budget.goal import Goal, shown
from plankwise.search.pareto.plan import Parameters, SearchPlan
from plankwise.search.pareto.sampler import FINISHED, SeededSampler, requeue_stale, retries_of, set_constraints

logger = logging.getLogger(__name__)
OUTCOME, FAILURE, BEGUN = "outcome", "failure", "begun"  # attributes of a trial
RETRIES = 2  # of a trial whose worker died; after that the trial itself is to blame
GRACE_S = 60.0  # between asking for a trial and its first heartbeat
PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)  # before a trial that was being completed is read again
Measure = Callable[[Parameters], Outcome | Failure]


class _DroppedError(Exception):
    """Ends a trial that does not count: a repeat, one too many, or one whose candidate could not be made."""


class Rung:
    """The trials of one fidelity.

    Args:
        plan: of the search.
        storage: with heartbeats.
        name: of the study in the storage.
        goal: the budget, whose constraints guide the sampler.
        measure: makes and measures the candidate of a setting.
        draws: how many settings the sampler may draw; None for any number, 0 where they are queued only.
        grace_s: after which a running trial without any heartbeat counts as dead.
    """

    def __init__(
        self,
        plan: SearchPlan,
        storage: optuna.storages.RDBStorage,
        name: str,
        *,
        goal: Goal,
        measure: Measure,
        draws: int | None,
        grace_s: float = GRACE_S,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._plan, self._goal, self._measure, self._draws, self._grace_s = plan, goal, measure, draws, grace_s
        self._storage, self._name = storage, name
        self._repeated, self._is_exhausted = False, False
        self._number: int | None = None  # of the trial that this worker runs
        self.study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["maximize", "maximize"],
            sampler=SeededSampler(plan.seed),
            load_if_exists=True,
        )

    @property
    def outcomes(self) -> list[Outcome]:
        """What was measured, each setting once, in the order of the trials."""
        return [outcome for _, outcome in self.measured]

    @property
    def measured(self) -> list[tuple[Parameters, Outcome]]:
        """The outcomes with their settings."""
        found: dict[str, tuple[Parameters, Outcome]] = {}
        for trial in self._trials(TrialState.COMPLETE):
            outcome = Outcome.model_validate_json(trial.user_attrs[OUTCOME])
            found.setdefault(key_of(trial), (trial.params, outcome))
        return list(found.values())

    @property
    def failures(self) -> list[Failure]:
        """The candidates that could not be made or measured."""
        failed = [each for each in self._trials(TrialState.FAIL) if FAILURE in each.user_attrs]
        return [Failure.model_validate_json(each.user_attrs[FAILURE]) for each in failed]

    @property
    def running(self) -> int:
        """Number of trials that some worker is running."""
        return len(self._trials(TrialState.RUNNING))

    def requeue_dead(self) -> None:
        """Queue the trials of dead workers again.

        Optuna sees a stopped heartbeat, but not a trial whose worker died before its first one.
        """
        requeue_stale(self.study)
        for trial in self._trials(TrialState.RUNNING):
            begun = trial.datetime_start.timestamp() if trial.datetime_start else time.time()
            if trial.user_attrs.get(BEGUN) != trial.number and time.time() - begun > self._grace_s:
                with suppress(FINISHED, ValueError):  # another worker saw it, too
                    self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                    self.queue([trial.params] if trial.params else [])

    def queue(self, settings: Iterable[Parameters]) -> None:
        """Queue settings, unless a trial has them already."""
        taken = {key_of(each) for each in self._trials() if is_live(each)}
        for each in settings:
            if setting_key(each) not in taken:
                self.study.enqueue_trial(each)

    def has_work(self) -> bool:
        """Return whether there is a trial to begin: one that is queued, or one that may be drawn."""
        if self._trials(TrialState.WAITING):
            return True
        live = sum(is_live(each) for each in self._trials())
        return not self._is_exhausted and (self._draws is None or live < self._draws)

    def run_next(self) -> None:
        """Run one trial: a queued one, or a setting that the sampler draws."""
        if self._repeated and not self._trials(TrialState.WAITING):
            self._queue_untried()
            if self._is_exhausted:
                return
        self._number = None
        try:
            self.study.optimize(self._objective, n_trials=1, catch=(_DroppedError,))
        except (FINISHED, ValueError):
            if not self._was_taken_over():
                raise
            logger.warning("another worker took over trial %s; its result here is dropped", self._number)

    def _was_taken_over(self) -> bool:
        finished = self._trials(TrialState.FAIL, TrialState.COMPLETE)
        return any(each.number == self._number and FAILURE not in each.user_attrs for each in finished)

    def _begin(self, trial: optuna.Trial) -> None:
        """Write a heartbeat before anything else, and note that there is one: Optuna's thread may not be as quick."""
        self._number = trial.number
        study = self._storage.get_study_id_from_name(self._name)
        self._storage.record_heartbeat(self._storage.get_trial_id_from_study_id_trial_number(study, trial.number))
        trial.set_user_attr(BEGUN, trial.number)

    def _objective(self, trial: optuna.Trial) -> tuple[float, float]:
        self._begin(trial)
        setting = self._plan.draw(trial)
        if self._is_superfluous(trial):
            self._repeated = True
            raise _DroppedError
        self._repeated = False
        begun = time.monotonic()
        try:
            found = self._measure(setting)
        except (OSError, KeyboardInterrupt):  # the machine's fault or the user's wish: the setting is tried again
            self.study.enqueue_trial(setting)
            raise
        if isinstance(found, Outcome) and not (math.isfinite(found.retained.value) and found.speedup.value > 0):
            found = Failure(candidate=found.candidate, fault="its score is not a number", seconds=found.seconds)
        logger.info("trial %d, %s: %s", trial.number, duration(time.monotonic() - begun), _said(found))
        if isinstance(found, Failure):
            trial.set_user_attr(FAILURE, found.model_dump_json())
            raise _DroppedError
        trial.set_user_attr(OUTCOME, found.model_dump_json())
        set_constraints(trial, self._goal.missing(found))
        return found.retained.value, found.speedup.value

    def _is_superfluous(self, trial: optuna.Trial) -> bool:
        """Return whether another trial has this setting, or enough settings were drawn without it."""
        before = [each for each in self._trials() if each.number < trial.number and is_live(each)]
        mine = setting_key(trial.params)
        return any(key_of(each) == mine for each in before) or bool(self._draws and len(before) >= self._draws)

    def _queue_untried(self) -> None:
        """After a repeat, queue a setting at random that no trial has; if there is none, the space is exhausted."""
        tried = {key_of(each) for each in self._trials()}
        settings, seed = self._plan.settings(), mix_seed(self._plan.seed, "untried", len(self._trials()))
        if settings is None:
            self.study.enqueue_trial(self._plan.at_random(seed))
            return
        untried = [each for each in settings if setting_key(each) not in tried]
        self._is_exhausted = not untried
        if untried:
            self.study.enqueue_trial(random.Random(seed).choice(untried))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Read trials from the storage itself, again where one was being completed meanwhile.

        A server reads a trial and its attributes one after the other, so that a trial may seem complete without what
        was measured of it; and the copies that a study keeps of complete trials would never be read again.
        """
        study = self._storage.get_study_id_from_name(self._name)
        for pause_s in PAUSES_S:
            found: list[FrozenTrial] = self._storage.get_all_trials(study, deepcopy=False, states=states or None)
            if all(is_whole(each) for each in found):
                return found
            time.sleep(pause_s)
        return [each for each in found if is_whole(each)]


def is_whole(trial: FrozenTrial) -> bool:
    """Return whether a trial that is complete has its outcome."""
    return trial.state != TrialState.COMPLETE or OUTCOME in trial.user_attrs


def is_live(trial: FrozenTrial) -> bool:
    """Return whether a trial is a try of its setting; one of a dead worker is not, unless it killed several."""
    if trial.state == TrialState.FAIL:
        return FAILURE in trial.user_attrs or retries_of(trial) >= RETRIES
    return True


def key_of(trial: FrozenTrial) -> str:
    """Return which setting a trial has; of a queued one, which it will have."""
    return setting_key(trial.params or trial.system_attrs.get("fixed_params", {}))


def setting_key(setting: dict[str, Any]) -> str:
    """Return a setting as text that does not depend on the order of its parameters."""
    return json.dumps(setting, sort_keys=True)


def _said(found: Outcome | Failure) -> str:
    if isinstance(found, Failure):
        return f"{found.candidate.name} is left out: {found.fault}"
    return f"{found.candidate.name} ({found.candidate.rung}): {shown(found)}"
