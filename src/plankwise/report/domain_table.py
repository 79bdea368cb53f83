"""The table of a domain experiment, from records alone: language models, each fine-tuned per task.

Its columns are those of the thesis (Jäger): what is retained, and how much faster fine-tuning and prediction become.
Everything is compared with the large language model, fine-tuned with the same seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.intervals import MISSING, format_interval
from plankwise.core.records import Entry, Final, Interval, Record, read_record
from plankwise.evaluation.comparison import retained_performance
from plankwise.evaluation.saved_predictions import read_predictions
from plankwise.report.run_report import RESAMPLES, finished, table
from plankwise.report.svg import scatter_picture, standalone

LARGE, CHECKPOINT = "large", "checkpoint"  # the latter fine-tunes another model than the large one
ModelRuns = Mapping[str, Sequence[Path]]  # folders of the runs of each variant, one per seed
COLUMNS = {
    "fine_tuning_speedup": "fine-tuning",
    "to_best_speedup": "to the best",
    "prediction_speedup": "prediction",
}


def summarize(name: str, language_models: Mapping[str, Path], tasks: Mapping[str, ModelRuns]) -> dict[str, Any]:
    """Return the table of a finished experiment as a JSON document.

    Args:
        name: of the experiment.
        language_models: folders of the language models' runs; `large` is that of the uncompressed one.
        tasks: for each task the runs of each variant.
    """
    return {
        "name": name,
        "seeds": len(next(iter(next(iter(tasks.values())).values()))),
        "language_models": {
            name: compression(read_record(folder)) for name, folder in language_models.items() if name != LARGE
        },
        "large": plain_training(read_record(language_models[LARGE])),
        "tasks": {task: task_rows(variants) for task, variants in tasks.items()},
    }


def plain_training(record: Record) -> dict[str, Any]:
    """Return what training the large language model on the corpus took."""
    large = _baseline(record)
    return {"scores": large.development_scores, "seconds": large.train_seconds, "steps": _steps([large])}


def compression(record: Record) -> dict[str, Any]:
    """Return the cost of compressing the language model, next to plain training of the large one on the same text."""
    large, small = _baseline(record), record.steps[-1]
    seconds = [_per_step(large), sum(step.train_seconds for step in record.steps) / max(1, _steps(record.steps))]
    return {
        "scores": {"large": large.development_scores, "small": small.development_scores},
        "parameters": {"large": large.cost.parameters, "small": small.cost.parameters},
        "size_bytes": {"large": large.cost.size_bytes, "small": small.cost.size_bytes},
        "seconds_per_step": {"plain_training": seconds[0], "compression": seconds[1]},
        "step_cost": seconds[1] / seconds[0] if seconds[0] else None,
        "compression_seconds": sum(step.train_seconds for step in record.steps),
        "compression_steps": _steps(record.steps),
    }


def task_rows(variants: ModelRuns) -> dict[str, Any]:
    """Return one task's lines: the large model, and each variant compared with it."""
    runs = next(iter(variants.values()))
    (pooled,) = table(runs)
    first = finished(runs[0])
    metric = first.task["metrics"][0]
    return {
        "metric": metric,
        "majority": _final(first).majority_scores[metric],
        "large": {
            "score": pooled.baseline_score.model_dump(),
            "parameters": _baseline(first).cost.parameters,
            "size_bytes": _baseline(first).cost.size_bytes,
        },
        "variants": {name: variant_row(each) for name, each in variants.items()},
    }


def variant_row(runs: Sequence[Path]) -> dict[str, Any]:
    """Return one variant's line: what is retained, and speed-ups with their range over seeds."""
    records = [finished(run) for run in runs]
    (pooled,) = table(runs)
    metric = records[0].task["metrics"][0]
    majority = _final(records[0]).majority_scores[metric]
    pairs = [read_predictions(run)[1] for run in runs]
    return {
        "score": pooled.score.model_dump(),
        "retained": _plain(pooled.retained),
        "chance_corrected": _plain(retained_performance(pairs, metric, RESAMPLES, chance=majority)),
        "fine_tuning_speedup": _spread([_baseline(each).train_seconds / _whole(each) for each in records]),
        "to_best_speedup": _spread([_until_best([_baseline(each)]) / _until_best(_made(each)) for each in records]),
        "prediction_speedup": _spread([_final(each).speedup for each in records]),
        "device": _final(records[0]).benchmark["device"],
        "parameters": pooled.parameters,
        "size_bytes": pooled.size_bytes,
        "fine_tuning_seconds": {
            "large": float(np.median([_baseline(each).train_seconds for each in records])),
            "small": float(np.median([_whole(each) for each in records])),
        },
    }


def markdown(document: dict[str, Any]) -> str:
    """Format the document as Markdown: a table for each task, and a line on each language model."""
    parts = [_task_table(name, row) for name, row in document["tasks"].items()]
    majority = ", ".join(f"{row['majority']:.3f}" for row in document["tasks"].values())
    lines = [f"{document['seeds']} seeds. Always guessing the majority scores {majority}."]
    lines += [_compressing(name, model) for name, model in document["language_models"].items()]
    return "\n\n".join([*parts, " ".join(lines)])


def picture_of(row: dict[str, Any], task: str) -> str | None:
    """Draw what each variant retains against how much faster it is fine-tuned, as an SVG file; None without a score."""
    points = [
        (name, each["fine_tuning_speedup"]["median"], kept["value"], kept["low"], kept["high"])
        for name, each in row["variants"].items()
        if (kept := each["retained"]) is not None
    ]
    if not points:
        return None
    across, up = "times as fast to fine-tune as the large language model", f"retained {row['metric']}, 95 %"
    spoken = "; ".join(f"{name} {value:.3f} at {place:.2f}×" for name, place, value, *_ in points)
    return standalone(scatter_picture(points, title=f"{task}: {spoken}", across=across, up=up, reference=1.0))


def _task_table(name: str, row: dict[str, Any]) -> str:
    """Format the lines of one task; a column that no variant has is left out."""
    runtimes = row.get("runtimes") or {}
    precisions = [each for each in ("fp32", "int8") if any(each in found for found in runtimes.values())]
    large = {"score": row["large"]["score"], **row["large"]}
    header = [f"{name}, {row['metric']}", "score", "retained", "above chance", *COLUMNS.values()]
    header += [*(f"ONNX Runtime {each}" for each in precisions), "parameters", "MB"]
    lines = [f"| {' | '.join(header)} |", f"| --- |{' ---: |' * (len(header) - 1)}"]
    for model, found in {LARGE: large, **row["variants"]}.items():
        cells = [model, *(_interval(found.get(key)) for key in ("score", "retained", "chance_corrected"))]
        cells += [f"{found[column]['median']:.2f}×" if column in found else "" for column in COLUMNS]
        cells += [_times(runtimes.get(model, {}).get(each)) for each in precisions]
        cells += [f"{found['parameters'] / 1e6:.2f} M", f"{found['size_bytes'] / 1e6:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _compressing(name: str, model: dict[str, Any]) -> str:
    large, small = (model["scores"][size]["perplexity"] for size in ("large", "small"))
    took = f"{model['compression_steps']} steps and {model['compression_seconds'] / 60:.0f} min"
    cost = f", a step {model['step_cost']:.2f} times one of plain training" if model["step_cost"] else ""
    return f"The language model {name}: held-out perplexity {large:.1f} → {small:.1f}; it took {took}{cost}."


def _times(timing: dict[str, Any] | None) -> str:
    return MISSING if timing is None or timing["speedup"] is None else f"{timing['speedup']:.2f}×"


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval.model_dump()


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


def _made(record: Record) -> list[Entry]:
    """Return everything that a variant had to do at the task: the large model's fine-tuning too if it starts there."""
    return [*([] if record.steps[0].name == CHECKPOINT else [_baseline(record)]), *record.steps]


def _whole(record: Record) -> float:
    """Return the seconds of everything that a variant had to do at the task."""
    return sum(entry.train_seconds for entry in _made(record))


def _until_best(entries: Sequence[Entry]) -> float:
    """Return the seconds of training until the weights that were kept, of the last of several stages."""
    return sum(entry.train_seconds for entry in entries[:-1]) + _to_best(entries[-1])


def _steps(entries: Sequence[Entry]) -> int:
    return sum(entry.details.training.steps for entry in entries if entry.details.training is not None)


def _per_step(entry: Entry) -> float:
    """Return the seconds of one step of training."""
    return entry.train_seconds / max(1, _steps([entry]))


def _to_best(entry: Entry) -> float:
    """Return the seconds of training until the weights that were kept; all of them where nothing was trained."""
    trained = entry.details.training
    return entry.train_seconds if trained is None else _per_step(entry) * trained.best_step
