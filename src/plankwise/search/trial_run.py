"""One trial: train its recipe, reuse the baseline that trials share, and read its score from the record."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

from plankwise.core.claims import ExclusiveClaim
from plankwise.core.errors import RecipeError
from plankwise.core.files import make_writable_folder
from plankwise.core.progress import quiet_loggers
from plankwise.core.recipe import to_plain
from plankwise.core.records import FILE_NAME, Record, read_record
from plankwise.core.seeds import mix_seed
from plankwise.run.folder import RECIPE
from plankwise.run.pipeline import Checked
from plankwise.run.stages import BASELINE
from plankwise.search.study_folder import BASELINES, TRIALS
from plankwise.search.study_plan import Setting, StudyPlan, trial_name
from plankwise.search.trial_table import LOSS, TrialRow

# A study trains hundreds of times; what each training logs would bury the study's own lines.
VERBOSE_LOGGERS = ("plankwise.core.progress", "plankwise.training", "plankwise.methods", "plankwise.run.stages")


Run = Callable[..., Record]  # runs a recipe up to a stage, as `plankwise.run.pipeline.run` does


def run_trial(plan: StudyPlan, setting: Setting, seed: int, out: Path, *, run: Run) -> Record:
    """Train a trial, or resume it, and return its record; unless `keep_models`, only the record is kept.

    Args:
        plan: the study, checked.
        setting: values of the trial.
        seed: of the trial.
        out: the study's folder.
        run: runs a recipe.
    """
    checked = plan.checked(setting, seed)
    folder = out / TRIALS / trial_name(setting, seed)
    record = _finished(checked, folder)
    if record is None:
        with quiet_loggers(*VERBOSE_LOGGERS):
            baseline = _shared_baseline(checked, out, run)
            record = run(checked, folder, resume=True, until="steps", baseline=baseline)
    if not plan.study.keep_models:
        for each in folder.iterdir():
            if each.name not in (FILE_NAME, RECIPE):
                shutil.rmtree(each, ignore_errors=True)
    return record


def _finished(checked: Checked, folder: Path) -> Record | None:
    """Return the record of a trial that was completed before; its models may have been deleted."""
    if not (folder / FILE_NAME).exists():
        return None
    record = read_record(folder)
    complete = len(record.steps) == len(checked.recipe.steps)
    same = record.recipe == to_plain(checked.recipe) and record.data_hashes == dict(checked.task.hashes)
    return record if complete and same else None


def _shared_baseline(checked: Checked, out: Path, run: Run) -> Path:
    """Train the uncompressed model once for all trials that share it; other workers that need it wait."""
    recipe = dataclasses.replace(checked.recipe, name=BASELINE, steps=())
    folder = out / BASELINES / f"{mix_seed(json.dumps(to_plain(recipe), sort_keys=True)):016x}"
    make_writable_folder(folder.parent)
    claim = ExclusiveClaim(folder.with_suffix(".lock"), folder)
    claim.wait()
    try:
        run(dataclasses.replace(checked, recipe=recipe), folder, resume=True, until="baseline")
    finally:
        claim.release()
    return folder / BASELINE


def measured(record: Record) -> tuple[float, TrialRow]:
    """Return a trial's score on the development split, and the other columns of its row.

    Raises:
        RecipeError: if the score is not finite.
    """
    assert record.baseline is not None
    metric, details = record.task["metrics"][0], [step.details for step in record.steps]
    score, baseline = (each.development_scores[metric] for each in (record.steps[-1], record.baseline))
    if not math.isfinite(score):
        raise RecipeError(f"the score {metric} is {score}")
    redraws = [each.redraws for each in details if each.redraws is not None]
    steps = sum(each.training.steps for each in details if each.training is not None)
    seconds = sum(step.train_seconds for step in record.steps)
    return score, {
        "baseline_score": baseline,
        "retained": score / baseline if baseline > 0 else None,
        LOSS: record.steps[-1].development_scores.get(LOSS),
        "train_seconds": seconds,
        "steps": steps,
        "seconds_per_step": seconds / steps if steps else None,
        "redraws": sum(redraws) if redraws else None,
    }
