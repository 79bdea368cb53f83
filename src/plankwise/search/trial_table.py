"""The table of a study's trials, one row each, made from what Optuna's storage holds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, TrialState

from plankwise.core.files import write_text
from plankwise.search.storage import SEED, decoded, encoded
from plankwise.search.study_plan import Setting, StudyPlan

SETTING, REASON, STOPPED = "setting", "reason", "stopped"  # attributes of a trial in the storage
LOSS, SECONDS = "log_loss", "seconds"  # of development; and how long the trial took, its baseline included
MEASURED = ("baseline_score", "retained", LOSS, "train_seconds", "steps", "seconds_per_step", "redraws", SECONDS)
MAX_DEATHS = 5  # of workers, after which the trial itself is to blame
_PREFERENCE = ("complete", "failed", "running", "waiting", "dead")  # among several attempts at one trial
TrialRow = dict[str, Any]


class TrialKey(NamedTuple):
    """What identifies a trial: the index of its setting, and its seed."""

    setting: int
    seed: int


def key_of(trial: FrozenTrial | optuna.Trial) -> TrialKey:
    """Return which trial of the study this attempt is at."""
    return TrialKey(trial.user_attrs[SETTING], trial.user_attrs[SEED])


def state_of(trial: FrozenTrial) -> str:
    """Return an attempt's state; one that failed without a reason of its own is `dead`, and repeated."""
    if trial.state == TrialState.FAIL:
        return "failed" if REASON in trial.user_attrs else "dead"
    return trial.state.name.lower()


def has_died(trial: FrozenTrial) -> bool:
    """Return whether the worker of an attempt died, rather than being stopped by its user."""
    return state_of(trial) == "dead" and STOPPED not in trial.user_attrs


def all_keys(plan: StudyPlan) -> list[TrialKey]:
    """List the trials in the order in which they are run.

    A grid runs seed by seed, so that it is crossed early; a sampler runs setting by setting, because the trial of the
    first seed draws the setting.
    """
    indices, seeds = range(plan.settings_count), plan.study.seeds
    if plan.grid:
        return [TrialKey(index, seed) for seed in seeds for index in indices]
    return [TrialKey(index, seed) for index in indices for seed in seeds]


def known_parameters(plan: StudyPlan, attempts: Sequence[FrozenTrial]) -> dict[int, Setting]:
    """Return the values of each setting as Optuna stores them, as far as a sampler has drawn them."""
    if plan.grid:
        return {at: {key: encoded(value) for key, value in each.items()} for at, each in enumerate(plan.grid)}
    drawn = [each for each in attempts if set(plan.keys) <= set(each.params)]
    return {each.user_attrs[SETTING]: {key: each.params[key] for key in plan.keys} for each in drawn}


def recipe_values(plan: StudyPlan, parameters: Setting) -> Setting:
    """Return stored values as those of the recipe."""
    return {key: decoded(plan, key, parameters[key]) for key in plan.keys}


def trial_rows(plan: StudyPlan, attempts: Sequence[FrozenTrial]) -> list[TrialRow]:
    """Return one row per trial, in the order in which they are run; those not begun are `waiting`."""
    found: dict[TrialKey, list[FrozenTrial]] = {}
    for each in attempts:
        found.setdefault(key_of(each), []).append(each)
    parameters = known_parameters(plan, attempts)
    rows = []
    for number, key in enumerate(all_keys(plan), 1):
        known = parameters.get(key.setting)
        setting = dict.fromkeys(plan.keys) if known is None else recipe_values(plan, known)
        rows.append({"number": number, **_row(setting, key.seed, found.get(key, []))})
    return rows


def _row(setting: Setting, seed: int, attempts: list[FrozenTrial]) -> TrialRow:
    best = min(attempts, key=lambda each: _PREFERENCE.index(state_of(each)), default=None)
    state, notes, reason = "waiting" if best is None else state_of(best), {} if best is None else best.user_attrs, None
    if state == "failed":
        reason = notes[REASON]
    elif state == "dead":
        deaths = sum(has_died(each) for each in attempts)
        state, reason = ("failed", f"its worker died {deaths} times") if deaths >= MAX_DEATHS else ("waiting", None)
    complete = state == "complete"
    return {
        "state": state,
        **setting,
        SEED: seed,
        "score": best.value if best is not None and complete else None,
        **{name: notes.get(name) if complete else None for name in MEASURED},
        REASON: reason,
    }


def write_table(rows: Sequence[TrialRow], path: Path) -> None:
    """Write the rows as CSV, atomically; lists and mappings are written as JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: json.dumps(value) if isinstance(value, (list, dict)) else value for key, value in row.items()}
        for row in rows
    )
    write_text(path, text.getvalue())
