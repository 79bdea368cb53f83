"""The trials of a study in Optuna's storage: handed out once each, to any number of workers, and never lost.

A trial is one setting with one seed. A worker claims the next one that nobody has; it holds a lock file, which the
system frees at its death, and writes a sign of life into the storage, for workers on other machines. A trial whose
worker died is given up and claimed again. Should two machines claim the same trial at once, the lower number wins and
the other is dropped before anything is trained.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from plankwise.core.errors import CheckpointError, OutputError
from plankwise.core.seeds import mix_seed
from plankwise.search.settings import Plan, Setting, shown
from plankwise.search.storage import (
    SEED,
    decoded,
    distributions,
    encoded,
    open_storage,
    unless_given_up,
    unless_out_of_reach,
)

logger = logging.getLogger(__name__)
SETTING, ALIVE, REASON, STOPPED = "setting", "alive", "reason", "stopped"
LOCKS = ".locks"
MEASURED = ("baseline_score", "retained", "train_seconds", "steps", "seconds_per_step", "redraws")
_ORDER = ("complete", "failed", "running", "waiting", "dead")
BEAT_SECONDS, GRACE_SECONDS = 20.0, 180.0
ATTEMPTS = 5  # deaths after which the trial itself is to blame
Ticket = tuple[int, int]  # index of the setting, seed
Row = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A trial that this worker alone may run."""

    trial: optuna.Trial
    setting: Setting
    seed: int
    number: int
    lock: FileLock


class Trials:
    """The table of trials, shared by all workers of a study."""

    def __init__(self, plan: Plan, folder: Path, url: str, resume: bool, begins: bool = True) -> None:
        self._plan, self._folder = plan, folder
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._queue = FileLock(folder / LOCKS / "queue")
        self._distributions = distributions(plan)
        with self._alone():
            self._study = self._open(url, resume, begins)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the queue, in a folder of locks that a worker who found nothing left to do may have removed."""
        while not self._queue.is_locked:
            (self._folder / LOCKS).mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                self._queue.acquire()
        try:
            yield
        finally:
            self._queue.release()

    def tidy(self) -> None:
        """Remove the locks once nothing is left to do; no worker is at anything then."""
        with self._alone():
            if not {row["state"] for row in self.rows()} & {"running", "waiting"}:
                shutil.rmtree(self._folder / LOCKS, ignore_errors=True)

    def _open(self, url: str, resume: bool, begins: bool) -> optuna.Study:
        storage, name = open_storage(url), self._plan.study.name
        if not begins and name not in optuna.get_all_study_names(storage):
            raise CheckpointError(f"the storage holds no study '{name}'; nothing has run that could be reported on")
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        wanted = json.loads(json.dumps(self._plan.definition()))
        known = study.user_attrs.get("definition")
        if known is None:
            study.set_user_attr("definition", wanted)
        elif known != wanted:
            names = ", ".join(key for key in wanted if wanted[key] != known.get(key))
            raise OutputError(
                f"the storage holds another study '{study.study_name}' (it differs in {names}); rename it"
            )
        elif not resume and study.get_trials(deepcopy=False):
            raise OutputError(f"the storage holds the study '{study.study_name}' already; add --resume to join it")
        return study

    def claim(self) -> Claim | None:
        """Take the next trial that nobody has; nothing if there is none left to begin."""
        while True:
            with self._alone():
                self._give_up_dead()
                index = self._enqueue()
                if index is None:
                    return None
                trial = self._ask(index)
                if self._is_first(trial):
                    lock = FileLock(self._lock_path(trial.number))
                    lock.acquire(blocking=False)
                    number = self._tickets().index(_ticket(trial)) + 1
                    return Claim(trial, self._setting(trial.params), _ticket(trial)[1], number, lock)
                self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)

    def _enqueue(self) -> int | None:
        """Put the next trial into Optuna's queue, unless a worker left one there; give the index of its setting."""
        left = [each for each in self._ours() if each.state == TrialState.WAITING]
        if left:
            return _ticket(left[0])[0]
        ticket = self._next()
        if ticket is None:
            return None
        index, seed = ticket
        fixed = {**self._parameters().get(index, {}), SEED: seed}
        self._study.enqueue_trial(fixed, user_attrs={SETTING: index, SEED: seed})
        return index

    def _ask(self, index: int) -> optuna.Trial:
        """Take a trial out of the queue; what it leaves open is drawn, at random by the index of its setting alone."""
        sampler = optuna.samplers.TPESampler if self._plan.study.sampler == "tpe" else optuna.samplers.RandomSampler
        self._study.sampler = sampler(seed=mix_seed(self._plan.study.name, index) % 2**32)
        return self._study.ask(self._distributions)

    def _is_first(self, trial: optuna.Trial) -> bool:
        """Tell whether no worker on another machine took the same trial at the same time."""
        if SETTING not in trial.user_attrs:  # or what was enqueued here, so that Optuna made up another
            return False
        return all(other.number >= trial.number for other in self._standing() if _ticket(other) == _ticket(trial))

    @contextmanager
    def held(self, claim: Claim) -> Iterator[None]:
        """Show that the trial's worker is alive, for as long as the context lasts."""
        trial, ended = claim.trial, threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_SECONDS):
                with unless_given_up(trial.number), unless_out_of_reach():
                    trial.set_user_attr(ALIVE, time.time())

        thread = threading.Thread(target=beat, daemon=True)
        try:
            trial.set_user_attr(ALIVE, time.time())
            trial.set_user_attr("worker", f"{platform.node()}:{os.getpid()}")
            thread.start()
            yield
            self._lock_path(trial.number).unlink(missing_ok=True)  # the storage knows by now what became of it
        finally:
            ended.set()
            if thread.ident is not None:
                thread.join()
            claim.lock.release()

    def complete(self, claim: Claim, score: float, notes: Row) -> None:
        """Record what a trial gave."""
        with unless_given_up(claim.trial.number):
            for key, value in notes.items():
                claim.trial.set_user_attr(key, value)
            self._study.tell(claim.trial, score, skip_if_finished=True)

    def fail(self, claim: Claim, reason: str | None) -> None:
        """Record why a trial failed; without a reason its worker was stopped, and it is to be claimed again."""
        with unless_given_up(claim.trial.number):
            claim.trial.set_user_attr(*((STOPPED, True) if reason is None else (REASON, reason)))
            self._study.tell(claim.trial, state=TrialState.FAIL, skip_if_finished=True)

    def running(self) -> int:
        """Count the trials that some worker is at."""
        with self._alone():
            self._give_up_dead()
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def rows(self) -> list[Row]:
        """List all trials, one row each, in a fixed order; those not begun are `waiting`."""
        found: dict[Ticket, list[FrozenTrial]] = {}
        for trial in self._ours():
            found.setdefault(_ticket(trial), []).append(trial)
        parameters = self._parameters()
        return [
            self._row(number, ticket, found.get(ticket, []), parameters.get(ticket[0]))
            for number, ticket in enumerate(self._tickets(), 1)
        ]

    def _row(self, number: int, ticket: Ticket, trials: list[FrozenTrial], parameters: Setting | None) -> Row:
        best = min(trials, key=lambda each: _ORDER.index(_state(each)), default=None)
        state, reason, score = "waiting" if best is None else _state(best), None, None
        setting = dict.fromkeys(self._plan.keys) if parameters is None else self._setting(parameters)
        notes: Row = {} if best is None else best.user_attrs
        if best is not None and state == "complete":
            score = best.value
        elif best is not None and state == "failed":
            reason = notes[REASON]
        elif state == "dead" and sum(_died(each) for each in trials) >= ATTEMPTS:
            state, reason = "failed", f"its worker died {ATTEMPTS} times"
        state = "waiting" if state == "dead" else state
        measured = {name: notes.get(name) if state == "complete" else None for name in MEASURED}
        return {
            "number": number,
            "state": state,
            **setting,
            SEED: ticket[1],
            "score": score,
            **measured,
            REASON: reason,
        }

    def _tickets(self) -> list[Ticket]:
        """List what is to be done: a grid seed by seed, so that it is crossed early; a sampler's setting by setting."""
        indices, seeds = range(self._plan.settings_count), self._plan.study.seeds
        if self._plan.grid:
            return [(index, seed) for seed in seeds for index in indices]
        return [(index, seed) for index in indices for seed in seeds]

    def _next(self) -> Ticket | None:
        taken = {_ticket(trial) for trial in self._standing()}
        deaths = Counter(_ticket(trial) for trial in self._ours() if _died(trial))
        known = self._parameters()
        for index, seed in self._tickets():
            # The first seed's trial draws the setting; until its values are known, the other seeds must wait.
            drawn = seed == self._plan.study.seeds[0] or index in known
            if (index, seed) not in taken and deaths[index, seed] < ATTEMPTS and drawn:
                return index, seed
        return None

    def _ours(self) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [each for each in trials if SETTING in each.user_attrs and each.state != TrialState.PRUNED]

    def _standing(self) -> list[FrozenTrial]:
        """List the trials that are waiting, running, complete, or failed for a reason of their own."""
        return [each for each in self._ours() if _state(each) != "dead"]

    def _parameters(self) -> dict[int, Setting]:
        """Give each setting's values as Optuna keeps them, as far as a sampler has drawn them."""
        if self._plan.grid:
            grid = enumerate(self._plan.grid)
            return {index: {key: encoded(value) for key, value in setting.items()} for index, setting in grid}
        whole = [trial for trial in self._ours() if set(self._plan.keys) <= set(trial.params)]
        return {trial.user_attrs[SETTING]: {key: trial.params[key] for key in self._plan.keys} for trial in whole}

    def _setting(self, parameters: Setting) -> Setting:
        """Turn values as Optuna keeps them back into those of the recipe."""
        return {key: decoded(self._plan, key, parameters[key]) for key in self._plan.keys}

    def _give_up_dead(self) -> None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_dead(trial):
                logger.warning("a worker died in the trial %s; it will be taken up again", shown(trial.params))
                with unless_given_up(trial.number):
                    self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                self._lock_path(trial.number).unlink(missing_ok=True)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        path = self._lock_path(trial.number)
        if path.exists():  # the system frees it when its process dies
            try:
                with FileLock(path, blocking=False):
                    return True
            except Timeout:
                return False
        began = trial.datetime_start.timestamp() if trial.datetime_start else time.time()
        return time.time() - float(trial.user_attrs.get(ALIVE, began)) > GRACE_SECONDS

    def _lock_path(self, number: int) -> Path:
        return self._folder / LOCKS / f"trial-{number}"


def _ticket(trial: FrozenTrial | optuna.Trial) -> Ticket:
    return trial.user_attrs[SETTING], trial.user_attrs[SEED]


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return "failed" if REASON in trial.user_attrs else "dead"
    return trial.state.name.lower()


def _died(trial: FrozenTrial) -> bool:
    return _state(trial) == "dead" and STOPPED not in trial.user_attrs
