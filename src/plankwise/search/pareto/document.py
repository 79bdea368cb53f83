"""What a search over a recipe's steps leaves, beyond what all searches do: its proxies, and a table of everything."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plankwise.core.files import write_json, write_text
from plankwise.search.budget.candidate import Failure, Outcome
from plankwise.search.budget.conclusion import PICTURE, conclude, read_document, remove_models
from plankwise.search.budget.evaluation import Evaluator, Original
from plankwise.search.budget.finish import ARTEFACT, MODEL, RECIPE
from plankwise.search.budget.goal import Goal
from plankwise.search.budget.start import Start

DOCUMENT, TABLE = "search.json", "candidates.csv"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search has found.

    Attributes:
        plain: the baseline in every runtime and precision.
        proxies: settings that were measured with short trainings.
        full: settings that were trained in full, or have nothing to train; results come from these alone.
        failures: candidates that could not be made.
        ended: why the search ended.
        spent_seconds: of this worker.
    """

    plain: list[Outcome]
    proxies: list[Outcome]
    full: list[Outcome]
    failures: list[Failure]
    ended: str
    spent_seconds: float


def finished(out: Path, trials: int | None, seconds: float | None) -> dict[str, Any] | None:
    """Return the document of a search that is complete; None if there is none, or if there is more to do.

    Args:
        out: the folder.
        trials: that the search may take now. One whose budget was not met resumes if that is more than before.
        seconds: likewise.
    """
    document = read_document(out / DOCUMENT)
    if document is None or document["verdict"]["met"]:
        return document
    more = _is_more(trials, document["trials_allowed"]) or _is_more(seconds, document["seconds_allowed"])
    return None if more else document


def _is_more(now: float | None, before: float | None) -> bool:
    return before is not None and (now is None or now > before)


def write_document(
    out: Path,
    *,
    goal: Goal,
    start: Start,
    original: Original,
    evaluator: Evaluator,
    found: Found,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Conclude a search and write its document and its table.

    Args:
        out: the folder of the search.
        goal: the budget.
        start: what was measured of the baseline.
        original: what candidates are compared with.
        evaluator: of the search, with the test split if there is one.
        found: the candidates.
        about: what else the document says.

    Raises:
        OutputError: if no candidate could be measured.
    """
    candidates = [*found.plain, *found.full]
    concluded = conclude(
        out,
        goal=goal,
        start=start,
        original=original,
        evaluator=evaluator,
        outcomes=candidates,
        failures=found.failures,
        before=read_document(out / DOCUMENT),
    )
    document = {
        **concluded,
        **about,
        "proxies": [each.model_dump(mode="json") for each in found.proxies],
        "ended": found.ended,
        "spent_seconds": found.spent_seconds,
    }
    write_text(out / TABLE, _table(candidates, found.proxies, document["metric"]))
    write_json(out / DOCUMENT, document)
    if document["verdict"]["met"]:
        remove_models(out)
    return document


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
