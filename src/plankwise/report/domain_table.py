"""The table of a domain experiment, from records alone: one language model, compressed once, then fine-tuned per task.

Its columns are those of the thesis (Jäger): what is retained, and how much faster fine-tuning and prediction become.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.intervals import MISSING, format_interval
from plankwise.core.records import Entry, Final, Record, read_record
from plankwise.report.run_report import finished, table


def summarize(name: str, language_model: Path, tasks: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Return the table of a finished experiment as a JSON document.

    Args:
        name: of the experiment.
        language_model: folder of the language model's run.
        tasks: folders of each task's runs, one per seed.
    """
    return {
        "name": name,
        "seeds": len(next(iter(tasks.values()))),
        "language_model": compression(read_record(language_model)),
        "tasks": {task: downstream_row(runs) for task, runs in tasks.items()},
    }


def compression(record: Record) -> dict[str, Any]:
    """Return the cost of compressing the language model, next to plain training of the large one on the same text."""
    assert record.baseline is not None
    large, small = record.baseline, record.steps[-1]
    seconds = [_per_step(large), sum(step.train_seconds for step in record.steps) / max(1, _steps(record.steps))]
    return {
        "scores": {"large": large.development_scores, "small": small.development_scores},
        "parameters": {"large": large.cost.parameters, "small": small.cost.parameters},
        "size_bytes": {"large": large.cost.size_bytes, "small": small.cost.size_bytes},
        "seconds_per_step": {"plain_training": seconds[0], "compression": seconds[1]},
        "step_cost": seconds[1] / seconds[0] if seconds[0] else None,
        "compression_seconds": sum(step.train_seconds for step in record.steps),
        "compression_steps": _steps(record.steps),
        "environment": record.environment,
    }


def downstream_row(runs: Sequence[Path]) -> dict[str, Any]:
    """Return one task's line: retained score, and speed-ups with their range over seeds."""
    records = [finished(run) for run in runs]
    (pooled,) = table(runs)
    pairs = [(_baseline(record), record.steps[-1]) for record in records]
    return {
        "metric": records[0].task["metrics"][0],
        "majority": _final(records[0]).majority_scores[records[0].task["metrics"][0]],
        "baseline_score": pooled.baseline_score.model_dump(),
        "score": pooled.score.model_dump(),
        "retained": None if pooled.retained is None else pooled.retained.model_dump(),
        "fine_tuning_speedup": _spread([_per_step(large) / _per_step(small) for large, small in pairs]),
        "to_best_speedup": _spread([_to_best(large) / _to_best(small) for large, small in pairs]),
        "prediction_speedup": _spread([_final(record).speedup for record in records]),
        "device": _final(records[0]).benchmark["device"],
        "seconds_per_epoch": {
            "large": float(np.median([_per_epoch(each, _baseline(each)) for each in records])),
            "small": float(np.median([_per_epoch(each, each.steps[-1]) for each in records])),
        },
    }


def markdown(document: dict[str, Any]) -> str:
    """Format the document as a Markdown table and one line on the language model."""
    model = document["language_model"]
    lines = [
        "| task | large | compressed | retained | fine-tuning | to the best | prediction |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in document["tasks"].items():
        columns = ("fine_tuning_speedup", "to_best_speedup", "prediction_speedup")
        speedups = [f"{row[column]['median']:.2f}×" for column in columns]
        lines.append(
            f"| {name}, {row['metric']} | {_interval(row['baseline_score'])} | {_interval(row['score'])} | "
            f"{_interval(row['retained'])} | {' | '.join(speedups)} |"
        )
    large, small = (model["parameters"][name] / 1e6 for name in ("large", "small"))
    perplexities = [model["scores"][name]["perplexity"] for name in ("large", "small")]
    cost = model["step_cost"]
    majority = ", ".join(f"{row['majority']:.3f}" for row in document["tasks"].values())
    compressing = f"{model['compression_steps']} steps and {model['compression_seconds'] / 60:.0f} min"
    lines += [
        "",
        f"{document['seeds']} seeds. Always guessing the majority scores {majority}. {large:.2f} M → {small:.2f} M "
        f"parameters; held-out perplexity {perplexities[0]:.1f} → {perplexities[1]:.1f}; compressing took {compressing}"
        + (f", a step {cost:.2f} times one of plain training." if cost else "."),
    ]
    return "\n".join(lines)


def _interval(value: dict[str, float] | None) -> str:
    return MISSING if value is None else format_interval(value["value"], value["low"], value["high"])


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "low": min(values), "high": max(values)}


def _baseline(record: Record) -> Entry:
    assert record.baseline is not None
    return record.baseline


def _final(record: Record) -> Final:
    assert record.final is not None
    return record.final


def _steps(entries: Sequence[Entry]) -> int:
    return sum(entry.details.training.steps for entry in entries if entry.details.training is not None)


def _per_step(entry: Entry) -> float:
    """Return the seconds of one step of training."""
    return entry.train_seconds / max(1, _steps([entry]))


def _per_epoch(record: Record, entry: Entry) -> float:
    # The last batch of an epoch may be smaller than the others, and counts as a step.
    batch_size = int(entry.settings["training"]["batch_size"])
    return float(_per_step(entry) * math.ceil(record.task["rows"]["train"] / batch_size))


def _to_best(entry: Entry) -> float:
    """Return the seconds of training until the weights that were kept."""
    return 0.0 if entry.details.training is None else _per_step(entry) * entry.details.training.best_step
