"""Reports: one page for a run, one table over runs. Both read records and saved logits, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from plankwise.core.errors import CheckpointError, OutputError
from plankwise.core.files import write_text
from plankwise.core.paths import check_target
from plankwise.core.records import Interval, Record, read_record
from plankwise.evaluation.comparison import Pair, retained_performance
from plankwise.evaluation.intervals import score_interval
from plankwise.evaluation.saved_predictions import read_predictions

RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """One line of the table: runs of one recipe that differ in their seed."""

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


def write_report(runs: Sequence[Path], target: Path) -> None:
    """Write the page of one or several finished runs as one self-contained HTML file, without any text of the data."""
    template = files("plankwise.report").joinpath("run.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=_percent, interval=_interval, size=_size, plain=_plain)
    records = [finished(run) for run in runs]
    write_text(target, environment.from_string(template).render(records=records, rows=table(runs)))


def check_page(runs: Sequence[Path], target: Path) -> None:
    """Refuse a place for a page before any run is read.

    Raises:
        OutputError: if it cannot be written to, or would take the place of a file of a run.
    """
    check_target(target)
    inside = any(run.resolve() in target.resolve().parents or run.resolve() == target.resolve() for run in runs)
    if inside and target.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{target} is in a run's folder, whose files it could overwrite; allowed there: a .html file")


def finished(run: Path) -> Record:
    """Read the record of a run that has come to its end.

    Raises:
        CheckpointError: if it has not.
    """
    record = read_record(run)
    if record.final is None or record.baseline is None:
        raise CheckpointError(f"the run in {run} is not finished; go on with it by --resume")
    return record


def table(runs: Sequence[Path]) -> list[Row]:
    """Make one row for each recipe among the runs; runs that differ in the seed alone are pooled."""
    groups: dict[str, list[Path]] = {}
    folders = [run.resolve() for run in runs]
    twice = next((run for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1), None)
    if twice is not None:
        raise CheckpointError(f"the run {twice} is named twice; it would count as two seeds")
    for run in runs:
        groups.setdefault(finished(run).name, []).append(run)
    return [_row(name, paths) for name, paths in groups.items()]


def _row(name: str, runs: list[Path]) -> Row:
    records = [finished(run) for run in runs]
    pairs = _pairs(name, runs)
    metric = records[0].task["metrics"][0]
    finals = [record.final for record in records if record.final is not None]
    labels = [pair.labels for pair in pairs]
    return Row(
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


def _pairs(name: str, runs: list[Path]) -> list[Pair]:
    read = [read_predictions(run) for run in runs]
    if any(ids != read[0][0] for ids, _ in read):
        raise CheckpointError(f"the runs of {name} were tested on different examples")
    return [pair for _, pair in read]


def markdown(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table."""
    lines = [
        "| run | seeds | parameters | size | baseline | score | retained | smaller | faster | compression |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.name} | {row.seeds} | {row.parameters / 1e6:.2f} M | {_size(row.size_bytes)} | "
        f"{_interval(row.baseline_score)} | {_interval(row.score)} | {_interval(row.retained)} | "
        f"{row.compression_ratio:.2f}× | {row.speedup:.2f}×, {row.timed_in} | {row.train_seconds:.0f} s |"
        for row in rows
    ]
    return "\n".join(lines)


def _interval(value: Interval | None) -> str:
    return "–" if value is None else str(value)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
