"""Optuna's sampler and storage as a search uses them: multi-objective TPE, constraints, heartbeats, requeueing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from plankwise.core.seeds import mix_seed
from plankwise.search.storage import open_storage

CONSTRAINTS = "constraints of the budget"  # an attribute of a trial
STARTUP = 10  # settings that are drawn at random before TPE has enough to learn from
LARGEST = 1e9  # a constraint that is missed by infinity, such as by a score of 0
# Optuna 4.9 renamed the callback, and 5 took constraints from the sampler to the trial.
_RENAMED = hasattr(optuna.storages, "RetryHeartbeatStaleTrialCallback")
# What Optuna raises where a trial is finished already; 4.0 has no name for it.
FINISHED: type[Exception] = getattr(optuna.exceptions, "UpdateFinishedTrialError", RuntimeError)
_ON_TRIALS = hasattr(optuna.Trial, "set_constraint")


class SeededSampler(optuna.samplers.BaseSampler):
    """TPE whose every draw depends on the search's seed, the trial's number, and what was measured by then.

    Optuna's own sampler draws from one stream for each process: two workers with one seed would begin with the same
    settings, and a resumed one would repeat them.

    Args:
        seed: of the search.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._inner = self._of(0)

    def _of(self, number: int) -> optuna.samplers.BaseSampler:
        constraints: dict[str, Any] = {} if _ON_TRIALS else {"constraints_func": _stored_constraints}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                n_startup_trials=STARTUP,
                multivariate=True,
                group=True,  # a step that is left out has no values
                constant_liar=True,  # running trials of other workers count, so that none is proposed twice
                seed=mix_seed(self._seed, "search", number) % 2**32,  # NumPy takes 32 bits
                **constraints,
            )

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Begin a stream of the trial's own."""
        self._inner = self._of(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that are drawn jointly."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw parameters jointly."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Let the sampler store the constraints, where it is the one that does."""
        self._inner.after_trial(study, trial, state, values)


def set_constraints(trial: Trial, missing: Mapping[str, float]) -> None:
    """Store by how much a trial misses each constraint of the budget; 0 or less where it meets it."""
    values = {name: min(LARGEST, value) for name, value in missing.items()}
    trial.set_user_attr(CONSTRAINTS, list(values.values()))
    if _ON_TRIALS:
        with warnings.catch_warnings():  # a trial that is run again has those of its first attempt
            warnings.simplefilter("ignore")
            for name, value in values.items():
                trial.set_constraint(name, value)


def _stored_constraints(trial: FrozenTrial) -> Sequence[float]:
    return [float(each) for each in trial.user_attrs.get(CONSTRAINTS, [0.0])]


def storage_with_heartbeat(url: str, *, heartbeat_s: int, grace_s: int, retries: int) -> optuna.storages.RDBStorage:
    """Open a storage in which running trials have a heartbeat, and trials of dead workers are queued again.

    Args:
        url: of SQLAlchemy.
        heartbeat_s: seconds between two heartbeats.
        grace_s: seconds without one, after which a worker counts as dead.
        retries: how often a trial is queued again.
    """
    kind = "RetryHeartbeatStaleTrialCallback" if _RENAMED else "RetryFailedTrialCallback"
    name = "heartbeat_stale_trial_callback" if _RENAMED else "failed_trial_callback"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        callback = {name: getattr(optuna.storages, kind)(max_retry=retries)}
        return open_storage(url, heartbeat_interval=heartbeat_s, grace_period=grace_s, **callback)


def requeue_stale(study: optuna.Study) -> None:
    """Fail the trials whose heartbeat has stopped, and queue them again."""
    with warnings.catch_warnings(), suppress(FINISHED):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def retries_of(trial: FrozenTrial) -> int:
    """Return how often this setting's trial was queued again before this attempt."""
    history: Any = trial.system_attrs.get("retry_history", [])
    return len(history)
