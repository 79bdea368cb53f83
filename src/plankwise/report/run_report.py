"""Reports on runs: one page, one table. Both read records and saved logits, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from plankwise.core.errors import CheckpointError, OutputError
from plankwise.core.files import write_text
from plankwise.core.paths import check_target
from plankwise.core.records import Interval, Record, format_optional, read_record
from plankwise.evaluation.comparison import retained_performance
from plankwise.evaluation.intervals import score_interval
from plankwise.evaluation.saved_predictions import read_predictions
from plankwise.report.learning_curves import learning_pictures
from plankwise.report.run_sections import Flips, section_of
from plankwise.report.svg import scatter_picture
from plankwise.report.templates import format_size, render

RESAMPLES = 2000


@dataclass(frozen=True)
class RunSummary:
    """One line of the table: runs of one recipe that differ in their seed.

    Attributes:
        name: of the recipe.
        seeds: number of runs pooled.
        parameters, size_bytes, compression_ratio: of the first run; they are the same for every seed.
        baseline_score, score: on the test split, first metric of the task, averaged over seeds.
        retained: `score / baseline_score`; `None` where the baseline scores 0.
        speedup: baseline's time over the compressed model's, median over seeds.
        timed_in: runtime and precision in which the compressed model was timed.
        train_seconds: seconds of compression, mean over seeds.
    """

    name: str
    seeds: int
    parameters: int
    size_bytes: int
    baseline_score: Interval
    score: Interval
    retained: Interval | None
    compression_ratio: float
    speedup: float
    timed_in: str
    train_seconds: float


def write_report(
    runs: Sequence[Path], target: Path, *, reviews: Sequence[Mapping[str, Any]] = (), flips: Sequence[Flips] = ()
) -> None:
    """Write a self-contained HTML page on finished runs. It holds no text of the data but that of `flips`.

    Args:
        runs: folders of finished runs.
        target: the file.
        reviews: what people found in their errors, as `review.summary.summarize` returns it.
        flips: texts whose answers changed, as `run.flips.flips_of` returns them.
    """
    groups: dict[str, list[Path]] = {}
    for run in runs:
        groups.setdefault(finished(run).name, []).append(run)
    sections = [
        section_of([finished(run) for run in group], [read_predictions(run)[1] for run in group])
        for group in groups.values()
    ]
    rows, records = table(runs), [finished(run) for run in runs]
    curves = [learning_pictures(record) for record in records]
    shown = {
        "records": records,
        "rows": rows,
        "sections": sections,
        "curves": curves,
        "reviews": reviews,
        "flips": flips,
    }
    write_text(target, render("run.html.j2", **shown, front=front_of(rows)))


def front_of(rows: Sequence[RunSummary]) -> Markup | None:
    """Draw what each recipe retains against its speed; None unless two of them can be compared."""
    points = [
        (row.name, row.speedup, row.retained.value, row.retained.low, row.retained.high)
        for row in rows
        if row.retained is not None
    ]
    if len(points) < 2:
        return None
    spoken = "; ".join(f"{name} {value:.3f} at {speedup:.2f}×" for name, speedup, value, *_ in points)
    across, up = "times as fast as its baseline", "retained score, 95 %"
    return scatter_picture(points, title=f"the front: {spoken}", across=across, up=up, reference=1.0)


def check_page(runs: Sequence[Path], target: Path) -> None:
    """Check the path of a page before any run is read.

    Raises:
        OutputError: if it is not writable, or would overwrite a file of a run.
    """
    check_target(target)
    inside = any(run.resolve() in target.resolve().parents or run.resolve() == target.resolve() for run in runs)
    if inside and target.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{target} is in a run's folder, whose files it could overwrite; allowed there: a .html file")


def finished(run: Path) -> Record:
    """Return the record of a run that is complete.

    Raises:
        CheckpointError: if the run is not complete.
    """
    record = read_record(run)
    if record.final is None or record.baseline is None:
        raise CheckpointError(f"the run in {run} is not finished; resume it with --resume")
    return record


def table(runs: Sequence[Path]) -> list[RunSummary]:
    """Summarize runs, one line for each recipe; runs that differ in the seed alone are pooled.

    Raises:
        CheckpointError: if a run is named twice, is not complete, or was tested on other examples than its siblings.
    """
    folders = [run.resolve() for run in runs]
    twice = next((run for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1), None)
    if twice is not None:
        raise CheckpointError(f"the run {twice} is named twice; it would count as two seeds")
    groups: dict[str, list[Path]] = {}
    for run in runs:
        groups.setdefault(finished(run).name, []).append(run)
    return [_summarize(name, group) for name, group in groups.items()]


def _summarize(name: str, runs: list[Path]) -> RunSummary:
    predictions = [read_predictions(run) for run in runs]
    if any(ids != predictions[0][0] for ids, _ in predictions):
        raise CheckpointError(f"the runs of {name} were tested on different examples")
    pairs = [pair for _, pair in predictions]
    labels = [pair.labels for pair in pairs]
    records = [finished(run) for run in runs]
    metric = records[0].task["metrics"][0]
    finals = [record.final for record in records if record.final is not None]
    return RunSummary(
        name=name,
        seeds=len(runs),
        parameters=finals[0].cost.parameters,
        size_bytes=finals[0].cost.size_bytes,
        baseline_score=score_interval(labels, [pair.baseline for pair in pairs], metric, RESAMPLES),
        score=score_interval(labels, [pair.compressed for pair in pairs], metric, RESAMPLES),
        retained=retained_performance(pairs, metric, RESAMPLES),
        compression_ratio=finals[0].compression_ratio,
        speedup=float(np.median([final.speedup for final in finals])),
        timed_in=" or ".join(sorted({final.timed_in.compressed for final in finals})),
        train_seconds=float(np.mean([final.cost.train_seconds for final in finals])),
    )


def markdown(rows: Sequence[RunSummary]) -> str:
    """Format the summaries as a Markdown table."""
    lines = [
        "| run | seeds | parameters | size | baseline | score | retained | smaller | faster | compression |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.name} | {row.seeds} | {row.parameters / 1e6:.2f} M | {format_size(row.size_bytes)} | "
        f"{row.baseline_score} | {row.score} | {format_optional(row.retained)} | "
        f"{row.compression_ratio:.2f}× | {row.speedup:.2f}×, {row.timed_in} | {row.train_seconds:.0f} s |"
        for row in rows
    ]
    return "\n".join(lines)
