"""Working through a study: claim a trial, train it, score it on the development split, go on until none is left."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import math
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import yaml
from filelock import FileLock

from plankwise.core.distributed import process_count
from plankwise.core.documents import read_yaml
from plankwise.core.errors import CheckpointError, OutputError, PlankwiseError, RecipeError
from plankwise.core.files import contents, make_writable_folder, write_text
from plankwise.core.paths import found_at, undone_if_refused
from plankwise.core.progress import quiet_loggers
from plankwise.core.recipe import to_plain
from plankwise.core.records import FILE_NAME, Record, read_record
from plankwise.core.seeds import mix_seed
from plankwise.run.folder import RECIPE
from plankwise.run.pipeline import Checked, run
from plankwise.run.stages import BASELINE
from plankwise.search.settings import Plan, shown, trial_name
from plankwise.search.storage import check_storage, reachable
from plankwise.search.trials import Claim, Row, Trials

logger = logging.getLogger(__name__)
LOUD = (
    "plankwise.core.progress",
    "plankwise.training",
    "plankwise.methods",
    "plankwise.run.stages",
)  # a study trains hundreds of times
STUDY, TABLE, DATABASE, TRIALS, BASELINES = "study.yaml", "trials.csv", "trials.db", "trials", "baselines"
POLL_SECONDS = 2.0


def search(plan: Plan, out: Path, resume: bool = False, train: bool = True) -> list[Row]:
    """Run every trial of the study that nobody has run, beside whatever other workers there are; give the table.

    No trial ever holds the test split: a trial's score is its development score, by the task's first metric.

    Args:
        plan: the study, checked.
        out: the study's folder; several workers on one machine share it.
        resume: whether `out` and the storage may hold this study already.
        train: whether to run anything, or only to give the table as it stands.

    Raises:
        OutputError: if the folder or the storage holds something else or cannot be used.
        CheckpointError: if nothing is to be run and no trial is complete; what was found is left as it was.
    """
    if process_count() > 1:
        raise RecipeError("a study runs one process a worker; start the same command several times with --resume")
    if plan.study.storage is not None:
        check_storage(plan.study.storage)
    url = plan.study.storage or f"sqlite:///{(out / DATABASE).resolve()}"
    with reachable(url):
        trials = _opened(plan, out, url, resume, train)
        seconds: list[float] = []
        while train and (claim := _next_claim(trials)) is not None:
            began = time.monotonic()
            _work(plan, out, trials, claim)
            seconds.append(time.monotonic() - began)
            write_table(trials.rows(), out / TABLE)
            _tell(trials, claim, seconds)
        rows = trials.rows()
        trials.tidy()
    write_table(rows, out / TABLE)
    return rows


def _opened(plan: Plan, out: Path, url: str, resume: bool, begins: bool) -> Trials:
    """Take the folder and open the table of trials; where that is refused, leave what was found."""
    if not begins and plan.study.storage is None and not (out / DATABASE).is_file():
        raise CheckpointError(f"there is no study in {out}; nothing has run that could be reported on")
    with undone_if_refused(found_at(out), lambda: (out / TRIALS).exists()):
        _take_folder(plan, out, resume)
        trials = Trials(plan, out, url, resume, begins)
        if not begins:
            refuse_without_result(trials.rows(), str(out))
        return trials


def refuse_without_result(rows: Sequence[Row], where: str) -> None:
    """Refuse to report on a study none of whose trials is complete.

    Raises:
        CheckpointError: saying what became of them, and why the first of those failed that did.
    """
    counts = Counter(row["state"] for row in rows)
    if not counts["complete"]:
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        reason = next((f"; the first failure: {row['reason']}" for row in rows if row["state"] == "failed"), "")
        raise CheckpointError(f"no trial of the study in {where} is complete ({states}); nothing to report{reason}")


def _next_claim(trials: Trials) -> Claim | None:
    """Claim a trial; where all are taken, wait for the other workers, should one of them die."""
    told = False
    while True:
        claim = trials.claim()
        if claim is not None or not (others := trials.running()):
            return claim or trials.claim()
        if not told:
            logger.info("waiting for %d trials of other workers", others)
            told = True
        time.sleep(POLL_SECONDS)


def _work(plan: Plan, out: Path, trials: Trials, claim: Claim) -> None:
    """Run one trial; a fault of its setting is its result, a fault of the machine ends the worker."""
    with trials.held(claim):
        try:
            record = _trained(plan, out, claim)
            score, notes = _measured(record)
        except (OutputError, CheckpointError, OSError, KeyboardInterrupt, SystemExit):
            trials.fail(claim, None)
            raise
        except Exception as error:
            reason = f"{'' if isinstance(error, PlankwiseError) else f'{type(error).__name__}: '}{error}"
            trials.fail(claim, reason.splitlines()[0] if reason.strip() else type(error).__name__)
        else:
            trials.complete(claim, score, notes)


def _trained(plan: Plan, out: Path, claim: Claim) -> Record:
    """Train a trial, or go on with it; only its record stays."""
    checked = plan.checked(claim.setting, claim.seed)
    folder = out / TRIALS / trial_name(claim.setting, claim.seed)
    record = _finished(checked, folder)
    if record is None:
        with quiet_loggers(*LOUD):
            baseline = _baseline(checked, out)
            record = run(checked, folder, resume=True, until="steps", baseline=baseline)
    if not plan.study.keep_models:
        for each in folder.iterdir():
            if each.name not in (FILE_NAME, RECIPE):
                shutil.rmtree(each, ignore_errors=True)
    return record


def _finished(checked: Checked, folder: Path) -> Record | None:
    """Read the record of a trial that came to its end before; its models may be gone."""
    if not (folder / FILE_NAME).exists():
        return None
    record = read_record(folder)
    whole = len(record.steps) == len(checked.recipe.steps)
    same = record.recipe == to_plain(checked.recipe) and record.data_hashes == dict(checked.task.hashes)
    return record if whole and same else None


def _baseline(checked: Checked, out: Path) -> Path:
    """Train the uncompressed model once for all trials that share it; workers that need it meanwhile wait."""
    recipe = dataclasses.replace(checked.recipe, name=BASELINE, steps=())
    folder = out / BASELINES / f"{mix_seed(json.dumps(to_plain(recipe), sort_keys=True)):016x}"
    make_writable_folder(folder.parent)
    lock = folder.with_suffix(".lock")
    with FileLock(lock):
        try:
            run(dataclasses.replace(checked, recipe=recipe), folder, resume=True, until="baseline")
        finally:
            lock.unlink(missing_ok=True)  # who waits for it notices, and makes a new one
    return folder / BASELINE


def _measured(record: Record) -> tuple[float, Row]:
    """Read a trial's score and what stands beside it in the table."""
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
        "train_seconds": seconds,
        "steps": steps,
        "seconds_per_step": seconds / steps if steps else None,
        "redraws": sum(redraws) if redraws else None,
    }


def _tell(trials: Trials, claim: Claim, seconds: Sequence[float]) -> None:
    rows = trials.rows()
    row = rows[claim.number - 1]
    waiting = sum(each["state"] == "waiting" for each in rows)
    left = statistics.mean(seconds) * waiting / (1 + trials.running())
    what = f"failed: {row['reason']}" if row["score"] is None else f"score {row['score']:.4f}"
    about = f"about {left:.0f} s left" if left < 120 else f"about {left / 60:.0f} min left"
    done = sum(each["state"] in ("complete", "failed") for each in rows)
    logger.info(
        "trial %d of %d: %s, seed %d: %s (%.0f s), %s", done, len(rows), shown(claim.setting), claim.seed, what,
        seconds[-1], about,
    )  # fmt: skip


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write the trials as CSV in one step."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: json.dumps(v) if isinstance(v, (list, dict)) else v for key, v in row.items()} for row in rows
    )
    write_text(path, text.getvalue())


def _take_folder(plan: Plan, out: Path, resume: bool) -> None:
    """Make the folder this study's, unless it is another's.

    Raises:
        OutputError: if it holds something else, or this very study and `resume` was not asked for.
    """
    definition = json.loads(json.dumps(plan.definition()))
    if out.exists() and not out.is_dir():
        raise OutputError(f"cannot write to {out}: it is a file")
    present = contents(out)
    if present and STUDY not in present:
        raise OutputError(f"{out} holds files that are not of a study; choose an empty or a new folder")
    if STUDY in present:
        known = read_yaml(out / STUDY, "the study")[1]
        if known != definition:
            mapping = known if isinstance(known, dict) else {}
            names = ", ".join(key for key in definition if definition[key] != mapping.get(key))
            raise OutputError(f"{out} holds another study (it differs in {names}); choose another folder")
        if not resume:
            raise OutputError(f"{out} holds this study already; add --resume to go on with it or to join it")
    make_writable_folder(out)
    write_text(out / STUDY, yaml.safe_dump(definition, sort_keys=False, allow_unicode=True))
