"""What a search leaves: the verdict, the table and the picture of all candidates, the chosen model and its recipe."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plankwise.core.errors import CheckpointError, OutputError
from plankwise.core.files import read_text, write_json, write_text
from plankwise.core.hardware import environment
from plankwise.core.intervals import format_interval
from plankwise.report.front import Point, draw_front
from plankwise.report.templates import render
from plankwise.search.budget.candidate import Outcome
from plankwise.search.budget.evaluation import ARTEFACTS, MODELS, Evaluator, Original, title_of
from plankwise.search.budget.goal import Goal, best_of, front
from plankwise.search.budget.log import CandidateLog
from plankwise.search.shrink.finish import ARTEFACT, MODEL, RECIPE, HeldBack, hold_back, write_model
from plankwise.search.shrink.start import Start

DOCUMENT, PICTURE, PAGE = "shrink.json", "front.png", "report.html"
NOT_HERE = "timed on this processor, which is not the one that it is for"


def finished(out: Path, seconds: float) -> dict[str, Any] | None:
    """Return the document of a search that is complete; None if there is none, or if there is more to do.

    Args:
        out: the folder.
        seconds: that the search may take now. One whose budget was not met goes on if that is more than before.
    """
    if not (out / DOCUMENT).exists():
        return None
    try:
        document: dict[str, Any] = json.loads(read_text(out / DOCUMENT))
        known = float(document["seconds_allowed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{out / DOCUMENT} is damaged") from None
    return None if seconds > known and not document["verdict"]["met"] else document


def conclude(
    out: Path,
    *,
    goal: Goal,
    start: Start,
    original: Original,
    evaluator: Evaluator,
    log: CandidateLog,
    references: Mapping[str, Path],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Choose the best candidate on development, score it on the rows held back, and write everything.

    Args:
        out: the folder of the search.
        goal: the budget.
        start: what was measured of the original.
        original: what candidates are compared with.
        evaluator: of the search.
        log: of the candidates.
        references: the original in other runtimes, by title.
        about: what else the document says: data, time, device and why the search ended.

    Raises:
        OutputError: if every candidate failed.
    """
    chosen = best_of(goal, log.outcomes)
    if chosen is None:
        faults = "; ".join(f"{each.candidate.name}: {each.fault}" for each in log.failures)
        raise OutputError(f"no candidate could be made: {faults or 'there was no time for any'}")
    held_back = hold_back(evaluator, original, chosen, dict(references))
    write_model(evaluator, chosen, out)
    metric = evaluator.task.metrics[0]
    on_front = front(log.outcomes)
    document = {
        "verdict": verdict_of(goal, chosen, held_back, start, metric=metric),
        "goal": {"retain": goal.retain, "speedup": goal.speedup, "max_size_bytes": goal.max_size_bytes},
        "metric": metric,
        **about,
        "original": start.model_dump(mode="json"),
        "chosen": chosen.model_dump(mode="json"),
        "held_back": held_back.model_dump(mode="json"),
        "front": [each.candidate.name for each in on_front],
        "candidates": [each.model_dump(mode="json") for each in log.outcomes],
        "failures": [each.model_dump(mode="json") for each in log.failures],
        "environment": environment(),
    }
    points = [_point(each, each in on_front, each == chosen) for each in log.outcomes]
    _write(out, document, points, log.outcomes)
    return document


def _write(out: Path, document: dict[str, Any], points: list[Point], outcomes: list[Outcome]) -> None:
    """Write picture, page and document, and remove what a search that is over needs no more."""
    goal, metric, reference = document["goal"], document["metric"], document["original"]["reference"]
    aims = {name: goal[name] for name in ("retain", "speedup")}
    draw_front(points, out / PICTURE, reference=reference, metric=metric, **aims)
    picture = base64.b64encode((out / PICTURE).read_bytes()).decode()
    write_text(out / PAGE, render("shrink.html.j2", found=document, outcomes=outcomes, picture=picture))
    write_json(out / DOCUMENT, document)
    if document["verdict"]["met"]:  # one that fell short may go on with more time, and needs them
        for name in (MODELS, ARTEFACTS):
            shutil.rmtree(out / name, ignore_errors=True)


def verdict_of(goal: Goal, chosen: Outcome, held_back: HeldBack, start: Start, *, metric: str) -> dict[str, Any]:
    """Judge by the rows held back: the lower bounds of what is retained and of the speed-up have to reach the budget.

    Returns:
        met: whether every constraint is met.
        text: in words, the verdict first.
        missed: the constraints that are not met.
    """
    speed = held_back.speedup[start.reference]
    retained = held_back.retained[metric]
    final = chosen.model_copy(update={"retained": retained, "speedup": speed})
    missed = [name for name, value in goal.missing(final).items() if value > 0]
    if not start.beats_majority:
        missed.append("original")
    faster = format_interval(speed.value, speed.low, speed.high, digits=2, unit="×")
    shown = (
        f"{chosen.candidate.name}: {format_interval(retained.value, retained.low, retained.high)} of {metric} kept "
        f"on {held_back.rows} rows held back, {faster} as fast as the original in {start.reference}, "
        f"{chosen.size_bytes / 1e6:.1f} MB"
    )
    begins = f"goal met ({goal.describe()})" if not missed else f"goal not met ({goal.describe()}), nearest is"
    why = "" if start.beats_majority else "; the original itself does not beat the majority class, so nothing is proved"
    return {
        "met": not missed,
        "missed": missed,
        "text": f"{begins}: {shown}{why}" if not missed else f"{begins} {shown}{why}",
    }


def lines_of(document: Mapping[str, Any], out: Path) -> list[str]:
    """Return what the command line prints: the verdict first, then what was measured and where the files are."""
    held_back, original = document["held_back"], document["original"]
    faster = ", ".join(f"{each['value']:.2f}× {name}" for name, each in held_back["speedup"].items())
    plain = [each for each in document["candidates"] if not each["candidate"]["steps"]]
    int8 = [each for each in plain if each["candidate"]["precision"] == "int8"]
    said = [
        f"{title_of(each['candidate']['runtime'], 'int8')}: {each['speedup']['value']:.2f}×, "
        f"retained {each['retained']['value']:.3f}"
        for each in int8
    ]
    return [
        document["verdict"]["text"],
        f"measured is {document['measured']}; as fast as the original: {faster}",
        *([f"int8 alone, with no other compression: {'; '.join(said)}"] if said else []),
        f"original: {document['metric']} {format_interval(**original['interval'])} on development, "
        f"majority class {original['majority']:.3f}",
        *document["notes"],
        f"{out / MODEL}, {out / ARTEFACT}, {out / RECIPE}, {out / PAGE}",
    ]


def _point(outcome: Outcome, on_front: bool, chosen: bool) -> Point:
    return Point(
        name=outcome.candidate.name,
        speedup=outcome.speedup.value,
        speedup_low=outcome.speedup.low,
        speedup_high=outcome.speedup.high,
        retained=outcome.retained.value,
        retained_low=outcome.retained.low,
        retained_high=outcome.retained.high,
        on_front=on_front,
        chosen=chosen,
    )
