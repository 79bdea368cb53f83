"""Finished runs of a made-up task, written without training anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.records import Cost, Entry, Final, Interval, Record
from plankwise.core.step_log import StepLog, TrainingLog
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.saved_predictions import PREDICTIONS, save_predictions

REVIEW: dict[str, Any] = {
    "title": "toy: <b>bad</b>",
    "class": "bad",
    "drawn": {},
    "items": 3,
    "progress": {"Ada": 3, "Bob": 3},
    "classes": [
        {
            "kind": "false positive",
            "error_class": "irony",
            "baseline": 0.0,
            "compressed": 1.5,
            "change": 1.5,
            "new": True,
        }
    ],
    "kappa": [{"annotators": ["Ada", "Bob"], "items": 3, "kappa": 0.4}],
}
COST = Cost(parameters=1_500_000, size_bytes=6_000_000, train_seconds=12.0)
SIDE = {"p50_ms": 1.0, "p95_ms": 2.0, "ms_per_text": 0.5}
CASE: dict[str, Any] = {"baseline": SIDE, "compressed": SIDE, "speedup": 1.5, "spread": [1.4, 1.6], "texts": 20}
LABELS = np.array([0, 1] * 10)


def entry(name: str, *, trained: bool = False) -> Entry:
    scores = {"accuracy": 0.75}
    history = [{"step": step, "score": 0.5 + step / 100} for step in (10, 20)]
    losses = [{"step": step, "loss": 1 - step / 100} for step in (5, 10, 15, 20)]
    training = TrainingLog(steps=20, planned_steps=20, train_seconds=12.0, best_step=20, history=history, losses=losses)
    replacement = [{"step": step, "rate": step / 20, "replaced": step / 20} for step in (10, 20)]
    return Entry(
        name=name,
        settings={},
        scores=scores,
        scores_split="development",
        cost=COST,
        train_seconds=12.0,
        development_scores=scores,
        details=StepLog(training=training, replacement=replacement if "theseus" in name else None)
        if trained
        else StepLog(),
    )


def write_run(
    folder: Path,
    *,
    name: str = "tiny",
    seed: int = 1,
    right: int = 15,
    final: bool = True,
    trained: bool = False,
    **of_final: Any,
) -> Path:
    """Write a run whose baseline is right on every example and whose compressed model on the first `right`.

    With `trained` its record has the curves of two trainings, the second one's modules being replaced.
    """
    interval = Interval(value=0.75, low=0.5, high=1.0)
    measured = Final(
        scores={"accuracy": 0.75},
        score_intervals={"accuracy": interval},
        baseline_intervals={"accuracy": interval},
        majority_scores={"accuracy": 0.5},
        cost=COST,
        retained_performance={"accuracy": None},
        chance_corrected={"accuracy": None},
        behaviour={"label_loyalty": 0.123456},
        compression_ratio=2.0,
        speedup=1.5,
        benchmark={"threads": 1, "device": "cpu", "latency": {"32": CASE}, "throughput": CASE},
        **of_final,
    )
    record = Record(
        name=name,
        task={"name": "toy", "metrics": ["accuracy"], "rows": {"test": 20}},
        baseline=entry("baseline", trained=trained),
        steps=[entry("01-<b>theseus</b>", trained=trained)],
        final=measured if final else None,
        environment={},
        data_hashes={},
        seed=seed,
        recipe={"name": name},
    )
    folder.mkdir()
    record.write(folder)
    logits = np.eye(2)[LABELS]
    compressed = np.where(np.arange(20)[:, None] < right, logits, logits[:, ::-1])
    save_predictions(folder / PREDICTIONS, [str(at) for at in range(20)], Pair(LABELS, logits, compressed))
    return folder
