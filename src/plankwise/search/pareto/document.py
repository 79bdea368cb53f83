"""What a search leaves: the verdict, all candidates as a table and a picture, the chosen model and its recipe."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plankwise.core.errors import CheckpointError
from plankwise.core.files import read_text, write_json, write_text
from plankwise.core.hardware import environment
from plankwise.core.intervals import format_interval
from plankwise.core.records import Interval
from plankwise.data.task import TEST
from plankwise.report.front import Point, draw_front
from plankwise.search.budget.candidate import Failure, Outcome
from plankwise.search.budget.evaluation import ARTEFACTS, MODELS, Evaluator, Original
from plankwise.search.budget.goal import Goal, best_of, front
from plankwise.search.shrink.finish import ARTEFACT, MODEL, RECIPE, HeldBack, hold_back, write_model
from plankwise.search.shrink.start import Start, references_of

DOCUMENT, PICTURE, TABLE = "search.json", "front.png", "candidates.csv"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a search has found.

    Attributes:
        plain: the baseline in every runtime and precision.
        proxies: settings that were measured with short trainings.
        full: settings that were trained in full, or have nothing to train; results come from these alone.
        failures: candidates that could not be made.
        why: the search ended.
        spent_seconds: of this worker.
    """

    plain: list[Outcome]
    proxies: list[Outcome]
    full: list[Outcome]
    failures: list[Failure]
    why: str
    spent_seconds: float

    @property
    def about(self) -> dict[str, Any]:
        """Why and when the search ended, as the document says it."""
        return {"ended": self.why, "spent_seconds": self.spent_seconds}


def finished(out: Path, trials: int | None, seconds: float | None) -> dict[str, Any] | None:
    """Return the document of a search that is complete; None if there is none, or if there is more to do.

    Args:
        out: the folder.
        trials: that the search may take now. One whose budget was not met goes on if that is more than before.
        seconds: likewise.
    """
    if not (out / DOCUMENT).exists():
        return None
    try:
        document: dict[str, Any] = json.loads(read_text(out / DOCUMENT))
        met, known = bool(document["verdict"]["met"]), (document["trials_allowed"], document["seconds_allowed"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{out / DOCUMENT} is damaged") from None
    more = _is_more(trials, known[0]) or _is_more(seconds, known[1])
    return None if more and not met else document


def _is_more(now: float | None, before: float | None) -> bool:
    return before is not None and (now is None or now > before)


def conclude(
    out: Path,
    *,
    goal: Goal,
    start: Start,
    original: Original,
    evaluator: Evaluator,
    ended: Ended,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Choose the best candidate on development, score it once on the test split, and write everything.

    Args:
        out: the folder of the search.
        goal: the budget.
        start: what was measured of the baseline.
        original: what candidates are compared with.
        evaluator: of the search, with the test split.
        ended: what was found.
        about: what else the document says.
    """
    candidates = [*ended.plain, *ended.full]
    chosen = _chosen(goal, candidates, ended.failures)
    tested = TEST in evaluator.task.splits
    held_back = hold_back(evaluator, original, chosen, references_of(evaluator)) if tested else None
    write_model(evaluator, chosen, out)
    metric, on_front = evaluator.task.metrics[0], front(candidates)
    verdict = verdict_of(goal, chosen, held_back, start, metric=metric)
    document = {
        "verdict": verdict,
        "metric": metric,
        **about,
        **ended.about,
        "original": start.model_dump(mode="json"),
        "chosen": chosen.model_dump(mode="json"),
        "held_back": None if held_back is None else held_back.model_dump(mode="json"),
        "front": [each.candidate.name for each in on_front],
        "candidates": [each.model_dump(mode="json") for each in candidates],
        "proxies": [each.model_dump(mode="json") for each in ended.proxies],
        "failures": [each.model_dump(mode="json") for each in ended.failures],
        "test_looks": _looks(out) + tested,
        "environment": environment(),
    }
    points = [_point(each, each in on_front, each == chosen) for each in candidates]
    draw_front(points, out / PICTURE, reference=start.reference, metric=metric, **_aims(goal))
    write_text(out / TABLE, _table(candidates, ended.proxies, metric))
    write_json(out / DOCUMENT, document)
    if verdict["met"]:
        _remove_models(out)
    return document


def _chosen(goal: Goal, candidates: list[Outcome], failures: list[Failure]) -> Outcome:
    chosen = best_of(goal, candidates)
    if chosen is None:
        faults = "; ".join(f"{each.candidate.name}: {each.fault}" for each in failures)
        raise CheckpointError(f"no candidate could be measured: {faults}")
    return chosen


def _aims(goal: Goal) -> dict[str, float | None]:
    return {"retain": goal.retain, "speedup": goal.speedup}


def _remove_models(out: Path) -> None:
    """Remove all models but the chosen one; a search that fell short may go on, and needs them."""
    for name in (MODELS, ARTEFACTS):
        shutil.rmtree(out / name, ignore_errors=True)


def verdict_of(goal: Goal, chosen: Outcome, held_back: HeldBack | None, start: Start, *, metric: str) -> dict[str, Any]:
    """Judge by the test split, and where there is none by development: lower bounds have to reach the budget.

    Returns:
        met: whether every constraint is met.
        text: in words, the verdict first.
        missed: the constraints that are not met.
    """
    retained: Interval = chosen.retained if held_back is None else held_back.retained[metric]
    speed: Interval = chosen.speedup if held_back is None else held_back.speedup[start.reference]
    rows = "development rows that it was chosen by" if held_back is None else f"{held_back.rows} test rows"
    final = chosen.model_copy(update={"retained": retained, "speedup": speed})
    missed = [name for name, value in goal.missing(final).items() if value > 0]
    missed += [] if start.beats_majority else ["original"]
    begins = f"goal not met ({goal.describe()}), nearest is" if missed else f"goal met ({goal.describe()}):"
    kept = format_interval(retained.value, retained.low, retained.high)
    faster = format_interval(speed.value, speed.low, speed.high, digits=2, unit="×")
    why = "" if start.beats_majority else "; the baseline does not beat the majority class, so nothing is proved"
    text = (
        f"{begins} {chosen.candidate.name}: {kept} of {metric} kept on {rows}, {faster} as fast as the baseline in "
        f"{start.reference}, {chosen.size_bytes / 1e6:.1f} MB{why}"
    )
    return {"met": not missed, "missed": missed, "text": text}


def lines_of(document: Mapping[str, Any], out: Path) -> list[str]:
    """Return what the command line prints: the verdict first, then how it was found and where the files are."""
    counts = {name: len(document[name]) for name in ("candidates", "proxies", "failures")}
    return [
        document["verdict"]["text"],
        f"{counts['candidates']} candidates in full, {counts['proxies']} with short trainings only, "
        f"{counts['failures']} left out; ended because {document['ended']}",
        ", ".join(str(out / name) for name in (MODEL, ARTEFACT, RECIPE, PICTURE, TABLE)),
    ]


def _table(candidates: list[Outcome], proxies: list[Outcome], metric: str) -> str:
    """Return all that was measured as CSV, proxies last."""
    text = io.StringIO()
    names = ("candidate", "rung", metric, "retained", "retained_low", "speedup", "speedup_low", "size_bytes", "seconds")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for each in [*candidates, *proxies]:
        kept, fast, made = each.retained, each.speedup, each.candidate
        figures = (each.scores[metric], kept.value, kept.low, fast.value, fast.low)
        writer.writerow([made.name, made.rung, *figures, each.size_bytes, round(each.seconds, 1)])
    return text.getvalue()


def _looks(out: Path) -> int:
    """Return how often the test split was scored before, by earlier ends of this search."""
    return int(json.loads(read_text(out / DOCUMENT)).get("test_looks", 0)) if (out / DOCUMENT).exists() else 0


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
