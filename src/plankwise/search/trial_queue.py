"""The queue of a study's trials, shared by any number of workers: each trial is handed out once, and never lost.

A trial is one setting with one seed. A worker claims the next one that no other has. It holds a lock file, which the
operating system releases if the worker dies, and writes a heartbeat into the storage for workers on other machines. A
trial whose worker died is given up and claimed again: Optuna then holds several attempts at it. If two machines claim
the same trial at once, the lower number wins and the other is dropped before anything is trained.
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

import optuna
from optuna.trial import FrozenTrial, TrialState

from plankwise.core.claims import ExclusiveClaim, is_claimed
from plankwise.core.errors import CheckpointError, OutputError
from plankwise.core.seeds import mix_seed
from plankwise.search.storage import SEED, distributions, open_storage, unless_given_up, unless_unreachable
from plankwise.search.study_plan import Setting, StudyPlan, format_setting
from plankwise.search.trial_table import (
    MAX_DEATHS,
    REASON,
    SETTING,
    STOPPED,
    TrialKey,
    TrialRow,
    all_keys,
    has_died,
    key_of,
    known_parameters,
    recipe_values,
    state_of,
    trial_rows,
)

logger = logging.getLogger(__name__)
HEARTBEAT, WORKER, LOCKS = "alive", "worker", ".locks"  # two attributes of a trial, one folder
HEARTBEAT_SECONDS, GRACE_SECONDS = 20.0, 180.0


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that this worker alone may run.

    Attributes:
        trial: Optuna's.
        setting: values of the recipe.
        seed: of the recipe.
        number: of its row in the table, from 1.
        claim: on the trial, held until it is over.
    """

    trial: optuna.Trial
    setting: Setting
    seed: int
    number: int
    claim: ExclusiveClaim


class TrialQueue:
    """Hands out the trials of a study and records their results."""

    def __init__(
        self,
        plan: StudyPlan,
        folder: Path,
        url: str,
        *,
        resume: bool,
        create: bool = True,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Open the study in its storage.

        Args:
            plan: the study, checked.
            folder: of this worker, or of several on one machine; it holds their locks.
            url: of the storage.
            resume: whether the storage may hold trials of this study already.
            create: whether to create the study if the storage does not hold it.
            grace_seconds: without a heartbeat, after which a worker on another machine counts as dead.

        Raises:
            OutputError: if the storage holds another study of this name, or this one and `resume` is false.
            CheckpointError: if it holds none and `create` is false.
        """
        self._plan, self._folder, self._grace_seconds = plan, folder, grace_seconds
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._queue = ExclusiveClaim(folder / LOCKS / "queue", folder, removes_lock=False)
        self._distributions = distributions(plan)
        with self._exclusive():
            self._study = self._open(url, resume, create)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the queue's lock; another worker that found nothing left to do may have removed its folder."""
        waiting = True
        while waiting:
            (self._folder / LOCKS).mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                self._queue.wait()
                waiting = False
        try:
            yield
        finally:
            self._queue.release()

    def _open(self, url: str, resume: bool, create: bool) -> optuna.Study:
        storage, name = open_storage(url), self._plan.study.name
        # The definition travels through JSON in the storage, which turns tuples into lists: compare it after the same.
        if not create and name not in optuna.get_all_study_names(storage):
            raise CheckpointError(f"the storage holds no study '{name}'; there is nothing to report on")
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        wanted = json.loads(json.dumps(self._plan.definition()))
        known = study.user_attrs.get("definition")
        if known is None:
            study.set_user_attr("definition", wanted)
        elif known != wanted:
            names = ", ".join(key for key in wanted if wanted[key] != known.get(key))
            raise OutputError(f"the storage holds another study '{name}' (it differs in {names}); rename it")
        elif not resume and study.get_trials(deepcopy=False):
            raise OutputError(f"the storage holds the study '{name}' already; add --resume to join it")
        return study

    def claim(self) -> ClaimedTrial | None:
        """Take the next trial that no worker has; `None` if there is none left to begin."""
        while True:
            with self._exclusive():
                self._give_up_dead()
                index = self._enqueue()
                if index is None:
                    return None
                trial = self._ask(index)
                if self._is_first(trial):
                    lock = self._lock_path(trial.number)
                    claim = ExclusiveClaim(lock, lock, removes_lock=False)
                    claim.take()  # no one else has the number, so this cannot fail
                    key = key_of(trial)
                    number = all_keys(self._plan).index(key) + 1
                    return ClaimedTrial(trial, recipe_values(self._plan, trial.params), key.seed, number, claim)
                self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)

    def _enqueue(self) -> int | None:
        """Put the next trial into Optuna's queue, unless a worker left one there; return the index of its setting."""
        left = [each for each in self._attempts() if each.state == TrialState.WAITING]
        if left:
            return key_of(left[0]).setting
        key = self._next()
        if key is None:
            return None
        known = known_parameters(self._plan, self._attempts()).get(key.setting, {})
        attributes = {SETTING: key.setting, SEED: key.seed}
        self._study.enqueue_trial({**known, SEED: key.seed}, user_attrs=attributes)
        return key.setting

    def _next(self) -> TrialKey | None:
        attempts = self._attempts()
        taken = {key_of(each) for each in attempts if state_of(each) != "dead"}
        deaths = Counter(key_of(each) for each in attempts if has_died(each))
        known = known_parameters(self._plan, attempts)
        for key in all_keys(self._plan):
            # The trial of the first seed draws the setting; until its values are known, the other seeds must wait.
            drawn = key.seed == self._plan.study.seeds[0] or key.setting in known
            if key not in taken and deaths[key] < MAX_DEATHS and drawn:
                return key
        return None

    def _ask(self, index: int) -> optuna.Trial:
        """Take a trial out of Optuna's queue; values still open are drawn with a seed that depends on `index` alone."""
        sampler = optuna.samplers.TPESampler if self._plan.study.sampler == "tpe" else optuna.samplers.RandomSampler
        self._study.sampler = sampler(seed=mix_seed(self._plan.study.name, index) % 2**32)  # NumPy takes 32 bits
        return self._study.ask(self._distributions)

    def _is_first(self, trial: optuna.Trial) -> bool:
        """Return whether no worker on another machine took the same trial at the same time."""
        if SETTING not in trial.user_attrs:  # a worker elsewhere took what was enqueued here, so Optuna made up another
            return False
        live = [each for each in self._attempts() if state_of(each) != "dead"]
        return all(each.number >= trial.number for each in live if key_of(each) == key_of(trial))

    @contextmanager
    def held(self, claim: ClaimedTrial) -> Iterator[None]:
        """Write heartbeats while the trial runs, and release its lock afterwards."""
        trial, ended = claim.trial, threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                with unless_given_up(trial.number), unless_unreachable():
                    trial.set_user_attr(HEARTBEAT, time.time())

        thread = threading.Thread(target=beat, daemon=True)
        try:
            trial.set_user_attr(HEARTBEAT, time.time())
            trial.set_user_attr(WORKER, f"{platform.node()}:{os.getpid()}")
            thread.start()
            yield
            self._lock_path(trial.number).unlink(missing_ok=True)  # by now the storage holds the result
        finally:
            ended.set()
            if thread.ident is not None:
                thread.join()
            claim.claim.release()

    def complete(self, claim: ClaimedTrial, score: float, notes: TrialRow) -> None:
        """Record a trial's score and what was measured with it."""
        with unless_given_up(claim.trial.number):
            for key, value in notes.items():
                claim.trial.set_user_attr(key, value)
            self._study.tell(claim.trial, score, skip_if_finished=True)

    def fail(self, claim: ClaimedTrial, reason: str | None) -> None:
        """Record why a trial failed; without a reason its worker was stopped, and the trial is claimed again."""
        with unless_given_up(claim.trial.number):
            claim.trial.set_user_attr(*((STOPPED, True) if reason is None else (REASON, reason)))
            self._study.tell(claim.trial, state=TrialState.FAIL, skip_if_finished=True)

    def running(self) -> int:
        """Count the trials that some worker is running."""
        with self._exclusive():
            self._give_up_dead()
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def rows(self) -> list[TrialRow]:
        """Return the table of all trials."""
        return trial_rows(self._plan, self._attempts())

    def tidy(self) -> None:
        """Remove the locks once every trial is over; no worker needs them then."""
        with self._exclusive():
            if not {row["state"] for row in self.rows()} & {"running", "waiting"}:
                shutil.rmtree(self._folder / LOCKS, ignore_errors=True)

    def _attempts(self) -> list[FrozenTrial]:
        """List all attempts, without those that another machine's claim overruled."""
        trials = self._study.get_trials(deepcopy=False)
        return [each for each in trials if SETTING in each.user_attrs and each.state != TrialState.PRUNED]

    def _give_up_dead(self) -> None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._is_dead(trial):
                logger.warning("a worker died in the trial %s; it will be run again", format_setting(trial.params))
                with unless_given_up(trial.number):
                    self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                self._lock_path(trial.number).unlink(missing_ok=True)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        path = self._lock_path(trial.number)
        if path.exists():  # of a worker on this machine
            return not is_claimed(path)
        # A worker on another machine: its lock file is not here, only its heartbeat is in the storage.
        began = trial.datetime_start.timestamp() if trial.datetime_start else time.time()
        return time.time() - float(trial.user_attrs.get(HEARTBEAT, began)) > self._grace_seconds

    def _lock_path(self, number: int) -> Path:
        return self._folder / LOCKS / f"trial-{number}"
