"""A worker of a study: claims a trial, trains it, records its score, and repeats until none is left."""

from __future__ import annotations

import logging
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from plankwise.core.distributed import process_count
from plankwise.core.errors import CheckpointError, OutputError, PlankwiseError, RecipeError
from plankwise.core.paths import found_at, undone_if_refused
from plankwise.run import pipeline
from plankwise.run.dry_run import estimate
from plankwise.search.dry_run import Rehearse, check_budget, estimate_study
from plankwise.search.storage import check_storage, reachable
from plankwise.search.study_folder import DATABASE, TABLE, TRIALS, take_folder
from plankwise.search.study_plan import StudyPlan, format_setting
from plankwise.search.trial_queue import ClaimedTrial, TrialQueue
from plankwise.search.trial_run import Run, measured, run_trial
from plankwise.search.trial_table import SECONDS, TrialRow, write_table

logger = logging.getLogger(__name__)
POLL_SECONDS = 2.0


def run_study(
    plan: StudyPlan,
    out: Path,
    *,
    resume: bool = False,
    train: bool = True,
    run: Run = pipeline.run,
    rehearse: Rehearse = estimate,
) -> list[TrialRow]:
    """Run every trial that no other worker runs, and return the table of all trials.

    No trial ever holds the test split: a trial's score is its development score, by the task's first metric.

    Args:
        plan: the study, checked.
        out: the study's folder; several workers on one machine share it.
        resume: whether `out` and the storage may hold this study already.
        train: whether to run trials, or only to return the table as it is.
        run: runs the recipe of a trial.
        rehearse: estimates the stages of one run, to check the study's minutes before it begins.

    Raises:
        RecipeError: if its minutes do not hold two trials of each setting.
        OutputError: if the folder or the storage holds something else or cannot be used.
        CheckpointError: if `train` is false and no trial is complete; the folder is left as it was.
    """
    if process_count() > 1:
        raise RecipeError("a study runs one process per worker; start the same command several times with --resume")
    if plan.study.storage is not None:
        check_storage(plan.study.storage)
    if plan.study.minutes is not None and train and not resume:
        check_budget(plan, estimate_study(plan, rehearse))
    url = plan.study.storage or f"sqlite:///{(out / DATABASE).resolve()}"
    with reachable(url):
        queue = _open(plan, out, url, resume=resume, train=train)
        seconds: list[float] = []
        while train and _fits(plan, queue) and (claim := _next_claim(queue)) is not None:
            began = time.monotonic()
            _run_claimed(plan, out, queue, claim, run=run, began=began)
            seconds.append(time.monotonic() - began)
            write_table(queue.rows(), out / TABLE)
            _log_trial(queue, claim, seconds)
        rows = queue.rows()
        queue.tidy()
    write_table(rows, out / TABLE)
    return rows


def _open(plan: StudyPlan, out: Path, url: str, *, resume: bool, train: bool) -> TrialQueue:
    """Take the folder and open the queue; if that is refused, leave both as they were."""
    if not train and plan.study.storage is None and not (out / DATABASE).is_file():
        raise CheckpointError(f"there is no study in {out}; there is nothing to report on")
    with undone_if_refused(found_at(out), lambda: (out / TRIALS).exists()):
        take_folder(plan, out, resume=resume)
        queue = TrialQueue(plan, out, url, resume=resume, create=train)
        if not train:
            require_result(queue.rows(), str(out))
        return queue


def require_result(rows: Sequence[TrialRow], where: str) -> None:
    """Check that at least one trial is complete.

    Raises:
        CheckpointError: with the states of the trials, and why the first failed.
    """
    counts = Counter(row["state"] for row in rows)
    if not counts["complete"]:
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        reason = next((f"; the first failure: {row['reason']}" for row in rows if row["state"] == "failed"), "")
        raise CheckpointError(f"no trial of the study in {where} is complete ({states}); nothing to report{reason}")


def _next_claim(queue: TrialQueue) -> ClaimedTrial | None:
    """Claim a trial; if other workers hold all that are left, wait in case one of them dies."""
    logged = False
    while True:
        claim = queue.claim()
        if claim is not None or not (others := queue.running()):
            return claim or queue.claim()
        if not logged:
            logger.info("waiting for %d trials of other workers", others)
            logged = True
        time.sleep(POLL_SECONDS)


def _fits(plan: StudyPlan, queue: TrialQueue) -> bool:
    """Return whether another trial fits into the study's minutes, as long as the others were, of all workers."""
    if plan.study.minutes is None:
        return True
    rows = queue.rows()
    took = [row[SECONDS] for row in rows if row[SECONDS] is not None]
    mean = statistics.mean(took) if took else 0.0
    fits = bool(sum(took) + mean * (queue.running() + 1) <= 60 * plan.study.minutes)
    waiting = sum(row["state"] == "waiting" for row in rows)
    if not fits and waiting:
        logger.warning("%d trials are not begun: the study's %g minutes are used up", waiting, plan.study.minutes)
    return fits


def _run_claimed(plan: StudyPlan, out: Path, queue: TrialQueue, claim: ClaimedTrial, *, run: Run, began: float) -> None:
    """Run one trial. An error that its setting causes is its result; an error of the machine ends the worker."""
    with queue.held(claim):
        try:
            score, notes = measured(run_trial(plan, claim.setting, claim.seed, out, run=run))
        except (OutputError, CheckpointError, OSError, KeyboardInterrupt, SystemExit):
            queue.fail(claim, None)
            raise
        except Exception as error:
            reason = f"{'' if isinstance(error, PlankwiseError) else f'{type(error).__name__}: '}{error}"
            queue.fail(claim, reason.splitlines()[0] if reason.strip() else type(error).__name__)
        else:
            queue.complete(claim, score, {**notes, SECONDS: time.monotonic() - began})


def _log_trial(queue: TrialQueue, claim: ClaimedTrial, seconds: Sequence[float]) -> None:
    rows = queue.rows()
    row = rows[claim.number - 1]
    waiting = sum(each["state"] == "waiting" for each in rows)
    left = statistics.mean(seconds) * waiting / (1 + queue.running())
    logger.info(
        "trial %d of %d: %s, seed %d: %s (%.0f s), %s left",
        sum(each["state"] in ("complete", "failed") for each in rows),
        len(rows),
        format_setting(claim.setting),
        claim.seed,
        f"failed: {row['reason']}" if row["score"] is None else f"score {row['score']:.4f}",
        seconds[-1],
        f"about {left:.0f} s" if left < 120 else f"about {left / 60:.0f} min",
    )
