"""The end of a search: the best candidate is chosen, scored once on rows held back, and written with all others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plankwise.core.errors import CheckpointError, OutputError
from plankwise.core.files import read_text
from plankwise.core.hardware import environment
from plankwise.core.intervals import format_interval
from plankwise.data.task import TEST
from plankwise.report.front import Point, draw_front
from plankwise.search.budget.candidate import Failure, Outcome
from plankwise.search.budget.evaluation import ARTEFACTS, MODELS, Evaluator, Original
from plankwise.search.budget.finish import HeldBack, hold_back, write_model
from plankwise.search.budget.goal import Goal, best_of, front
from plankwise.search.budget.start import Start, references_of

PICTURE = "front.png"


def read_document(path: Path) -> dict[str, Any] | None:
    """Return the document of a search that came to its end before; None if there is none.

    Raises:
        CheckpointError: if it is damaged.
    """
    if not path.exists():
        return None
    try:
        document: dict[str, Any] = json.loads(read_text(path))
        bool(document["verdict"]["met"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path} is damaged") from None
    return document


def conclude(
    out: Path,
    *,
    goal: Goal,
    start: Start,
    original: Original,
    evaluator: Evaluator,
    outcomes: Sequence[Outcome],
    failures: Sequence[Failure],
    before: dict[str, Any] | None,
) -> dict[str, Any]:
    """Choose by development, score the chosen candidate on the test split, write its model and draw the front.

    Args:
        out: the folder of the search.
        goal: the budget.
        start: what was measured of the original.
        original: what candidates are compared with.
        evaluator: of the search, with the test split if there is one.
        outcomes: of the candidates to choose from.
        failures: candidates that could not be made.
        before: the document of an earlier end of this search.

    Returns:
        What all searches write into their document.

    Raises:
        OutputError: if no candidate could be measured.
    """
    chosen = _best(goal, outcomes, failures)
    tested = TEST in evaluator.task.splits
    held_back = hold_back(evaluator, original, chosen, references_of(evaluator)) if tested else None
    write_model(evaluator, chosen, out)
    metric, on_front = evaluator.task.metrics[0], front(list(outcomes))
    points = [_point(each, each in on_front, each == chosen) for each in outcomes]
    aims = {"retain": goal.retain, "speedup": goal.speedup}
    draw_front(points, out / PICTURE, reference=start.reference, metric=metric, **aims)
    return {
        "verdict": verdict_of(goal, chosen, held_back, start, metric=metric),
        "goal": goal.as_dict(),
        "metric": metric,
        "original": start.model_dump(mode="json"),
        "chosen": chosen.model_dump(mode="json"),
        "held_back": None if held_back is None else held_back.model_dump(mode="json"),
        "front": [each.candidate.name for each in on_front],
        "candidates": [each.model_dump(mode="json") for each in outcomes],
        "failures": [each.model_dump(mode="json") for each in failures],
        "test_evaluations": (before or {}).get("test_evaluations", 0) + tested,  # more than one after a resume
        "environment": environment(),
    }


def _best(goal: Goal, outcomes: Sequence[Outcome], failures: Sequence[Failure]) -> Outcome:
    chosen = best_of(goal, list(outcomes))
    if chosen is None:
        faults = "; ".join(f"{each.candidate.name}: {each.fault}" for each in failures)
        raise OutputError(f"no candidate could be measured: {faults or 'there was no time for any'}")
    return chosen


def verdict_of(goal: Goal, chosen: Outcome, held_back: HeldBack | None, start: Start, *, metric: str) -> dict[str, Any]:
    """Judge by the rows held back, and where there are none by development: lower bounds have to reach the budget.

    Returns:
        met: whether every constraint is met.
        text: in words, the verdict first.
        missed: the constraints that are not met.
    """
    retained = chosen.retained if held_back is None else held_back.retained[metric]
    speed = chosen.speedup if held_back is None else held_back.speedup[start.reference]
    rows = "the development rows that it was chosen by" if held_back is None else f"{held_back.rows} rows held back"
    final = chosen.model_copy(update={"retained": retained, "speedup": speed})
    missed = [name for name, value in goal.missing(final).items() if value > 0]
    missed += [] if start.beats_majority else ["original"]
    begins = f"goal not met ({goal.describe()}), nearest is" if missed else f"goal met ({goal.describe()}):"
    kept = format_interval(retained.value, retained.low, retained.high)
    faster = format_interval(speed.value, speed.low, speed.high, digits=2, unit="×")
    why = "" if start.beats_majority else "; the original itself does not beat the majority class, so nothing is proved"
    text = (
        f"{begins} {chosen.candidate.name}: {kept} of {metric} kept on {rows}, {faster} as fast as the original in "
        f"{start.reference}, {chosen.size_bytes / 1e6:.1f} MB{why}"
    )
    return {"met": not missed, "missed": missed, "text": text}


def remove_models(out: Path) -> None:
    """Remove all models but the chosen one; a search that fell short may be resumed, and needs them."""
    for name in (MODELS, ARTEFACTS):
        shutil.rmtree(out / name, ignore_errors=True)


def _point(outcome: Outcome, on_front: bool, chosen: bool) -> Point:
    speed, retained = outcome.speedup, outcome.retained
    return Point(
        name=outcome.candidate.name,
        speedup=speed.value,
        speedup_low=speed.low,
        speedup_high=speed.high,
        retained=retained.value,
        retained_low=retained.low,
        retained_high=retained.high,
        on_front=on_front,
        chosen=chosen,
    )
