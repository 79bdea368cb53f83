"""The table of a domain experiment equals hand arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plankwise.core.records import Cost, Entry, Interval, Record
from plankwise.core.step_log import StepLog, TrainingLog
from plankwise.evaluation.comparison import Pair
from plankwise.report import domain_table
from plankwise.report.domain_table import compression, markdown, task_rows, variant_row


def entry(name: str, seconds: float, steps: int | None, best: int = 0, parameters: int = 100) -> Entry:
    trained: dict[str, Any] = (
        {} if steps is None else {"steps": steps, "planned_steps": steps, "best_step": best, "train_seconds": 0.0}
    )
    return Entry(
        name=name,
        settings={"training": {"batch_size": 10}},
        scores={},
        scores_split="development",
        cost=Cost(parameters=parameters, size_bytes=4 * parameters, train_seconds=seconds),
        train_seconds=seconds,
        development_scores={"perplexity": 10.0},
        details=StepLog(training=TrainingLog(**trained) if trained else None),
    )


def record(baseline: Entry, *steps: Entry) -> Record:
    return Record(
        name="r",
        task={"metrics": ["accuracy"], "rows": {"train": 95}},
        baseline=baseline,
        steps=list(steps),
        environment={},
        data_hashes={},
        seed=0,
        recipe={},
    )


def test_the_cost_of_a_step_equals_hand_arithmetic() -> None:
    two_steps = record(entry("baseline", 100.0, 50), entry("theseus", 30.0, 20), entry("theseus", 10.0, 20, 0, 60))
    found = compression(two_steps)
    assert found["seconds_per_step"] == {"plain_training": 2.0, "compression": 1.0}
    assert found["step_cost"] == 0.5
    assert found["compression_seconds"] == 40.0
    assert found["compression_steps"] == 40
    assert found["parameters"] == {"large": 100, "small": 60}
    assert compression(record(entry("baseline", 0.0, None), entry("theseus", 30.0, 20)))["step_cost"] is None


class Stub:
    """Stands for a summary or a final: what is asked for is there."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


RECORDS = {
    Path("a"): record(entry("baseline", 40.0, 20, best=10), entry("checkpoint", 10.0, 20, best=20)),
    Path("b"): record(entry("baseline", 60.0, 20, best=20), entry("checkpoint", 20.0, 20, best=5)),
    Path("c"): record(entry("baseline", 80.0, 20, best=20), entry("checkpoint", 10.0, 20, best=20)),
    Path("at the task"): record(entry("baseline", 40.0, 20, best=10), entry("theseus", 20.0, 10, best=5)),
    Path("pruned"): record(
        entry("baseline", 40.0, 20, best=10), entry("checkpoint", 20.0, 20, best=5), entry("pruning", 5.0, None)
    ),
}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records and predictions by path: 10 examples, of which the large model has 8 right, the other 7; chance is 5."""
    finals = {
        id(each): Stub(speedup=speed, majority_scores={"accuracy": 0.5}, benchmark={"device": "cpu"})
        for each, speed in zip(RECORDS.values(), (2.0, 4.0, 3.0, 1.0, 1.0), strict=True)
    }
    labels, logits = np.array([0, 1] * 5), np.eye(2)[[0, 1] * 5]
    pair = Pair(labels, logits.copy(), logits.copy())
    pair.baseline[:2], pair.compressed[:3] = logits[:2, ::-1], logits[:3, ::-1]
    interval = Interval(value=0.5, low=0.4, high=0.6)
    pooled = Stub(baseline_score=interval, score=interval, retained=None, parameters=7_000_000, size_bytes=28_000_000)
    monkeypatch.setattr(domain_table, "finished", RECORDS.__getitem__)
    monkeypatch.setattr(domain_table, "_final", lambda each: finals[id(each)])
    monkeypatch.setattr(domain_table, "table", lambda runs: [pooled])
    monkeypatch.setattr(domain_table, "read_predictions", lambda run: ([], pair))


def test_speedups_equal_hand_arithmetic() -> None:
    row = variant_row([Path("a"), Path("b"), Path("c")])
    assert row["fine_tuning_speedup"] == {"median": 4.0, "low": 3.0, "high": 8.0}
    assert row["to_best_speedup"] == {"median": 8.0, "low": 2.0, "high": 12.0}
    assert row["prediction_speedup"] == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert row["fine_tuning_seconds"] == {"large": 60.0, "small": 10.0}
    assert row["retained"] is None
    assert row["chance_corrected"]["value"] == pytest.approx(0.2 / 0.3)
    assert row["chance_corrected"]["low"] < 0.2 / 0.3 < row["chance_corrected"]["high"]


def test_what_starts_from_the_large_model_pays_for_its_fine_tuning() -> None:
    row = variant_row([Path("at the task")])
    assert row["fine_tuning_speedup"]["median"] == pytest.approx(40 / 60)
    assert row["to_best_speedup"]["median"] == pytest.approx(20 / 50)  # all of the large model's training, and half


def test_a_step_without_training_counts_whole() -> None:
    row = variant_row([Path("pruned")])
    assert row["fine_tuning_speedup"]["median"] == pytest.approx(40 / 25)
    assert row["to_best_speedup"]["median"] == pytest.approx(20 / 25)


def test_the_page_names_every_figure() -> None:
    task = task_rows({"halved": [Path("a"), Path("b"), Path("c")]})
    assert task["majority"] == 0.5
    models = {"halved": compression(record(entry("baseline", 0.0, None), entry("theseus", 30.0, 20)))}
    document = {"name": "x", "seeds": 3, "language_models": models, "tasks": {"mood": task}}
    page = markdown(document)
    assert "| mood, accuracy | score | retained | above chance | fine-tuning | to the best | prediction |" in page
    assert "| large | 0.500 [0.400, 0.600] | – | – |  |  |  | 0.00 M | 0 |" in page
    assert "| halved | 0.500 [0.400, 0.600] | – | 0.667 [" in page
    assert "| 4.00× | 8.00× | 3.00× | 7.00 M | 28 |" in page
    assert page.endswith("The language model halved: held-out perplexity 10.0 → 10.0; it took 20 steps and 0 min.")


def test_runtimes_have_columns_of_their_own_where_they_were_timed() -> None:
    task = task_rows({"halved": [Path("a")]})
    task["runtimes"] = {
        "large": {"fp32": {"speedup": 1.0}},
        "halved": {"fp32": {"speedup": 2.0}, "int8": {"speedup": None}},
    }
    page = markdown({"name": "x", "seeds": 1, "language_models": {}, "tasks": {"mood": task}})
    assert "| ONNX Runtime fp32 | ONNX Runtime int8 |" in page
    assert "| 2.00× | – | 7.00 M |" in page
    assert "| 1.00× | – | 0.00 M |" in page
