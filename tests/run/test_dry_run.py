"""What a dry run says, against what a run then does; and what it may cost."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

import tiny
from plankwise.core.recipe import read_recipe
from plankwise.data.batching.examples import encode, lengths_of
from plankwise.data.truncation import Truncation
from plankwise.run.dry_run import REHEARSED_BATCHES, estimate
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe
from plankwise.training import callbacks
from plankwise.training.trainer import LengthGrouped

RECIPE = """\
name: tiny
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 2, batch_size: 16}}
steps:
  - {{method: vocabulary, minimum_count: {minimum}}}
  - {{method: theseus, modules: 2, training: {{epochs: 1, batch_size: 16}}}}
  - {{method: pruning, target: 1.5, training: {{epochs: 1, batch_size: 16}}}}
evaluation: {{bootstrap: 100, rounds: 3, threads: 1, onnx_baseline: false}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    data, model = tiny.write_table(tmp_path), tiny.save_source(tmp_path / "source")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(data=data, model=model, minimum=20))
    return path


def test_parameters_and_steps_are_those_of_the_run_after_vocabulary_too(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "plankwise")
    rows = estimate(check(read_recipe(path, Recipe)))
    bound = "trying out a few steps of each stage, for 15 s of training at most and 45 s in all"
    assert [each.getMessage() for each in caplog.records] == [bound]
    record = run(check(read_recipe(path, Recipe)), tmp_path / "run", until="steps")
    assert record.baseline is not None
    entries = [record.baseline, *record.steps]
    assert record.steps[0].details.model_dump()["tokens"]["kept"] < 48
    # Which units pruning leaves hangs on the weights; how many parameters that is, hardly.
    assert [row["parameters"] for row in rows[:3]] == [each.cost.parameters for each in entries[:3]]
    assert rows[3]["parameters"] < rows[2]["parameters"]
    taken = [0 if each.details.training is None else each.details.training.steps for each in entries]
    assert [row["steps"] for row in rows] == taken == [12, 0, 6, 6]


def test_a_rehearsal_ends_in_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which each step takes a minute: one step a stage, and no more."""
    now, done = [0.0], []

    class Slow(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *given: Any, **named: Any) -> None:
            now[0] += 60.0
            done.append(now[0])

    monkeypatch.setattr(callbacks, "time", type("Clock", (), {"perf_counter": staticmethod(lambda: now[0])}))
    rows = estimate(check(read_recipe(path, Recipe)), [Slow()])
    assert len(done) == 3
    assert [row["seconds_per_step"] for row in rows] == [60.0, 0.0, 60.0, 60.0]
    assert rows[0]["seconds"] == 12 * 60.0


def test_what_is_tried_out_is_as_long_as_batches_are_on_average(tmp_path: Path) -> None:
    """Nine texts in ten are short, so that no batch is near the mean."""
    task, tokenizer, truncation = tiny.task(train=640), tiny.tokenizer(), Truncation(max_length=64)
    longer = {"text": [" ".join(["day"] * (40 if row % 10 == 0 else 5)) for row in range(640)]}
    train = task.splits["train"].remove_columns("text").add_column("text", longer["text"])
    task.splits["train"] = train
    job = tiny.job(tmp_path, task=task, tokenizer=tokenizer, truncation=truncation)
    few = job.objective.few_rows(job, batch_size=16, batches=REHEARSED_BATCHES, examples=640)
    chosen = [task.splits["train"]["id"].index(row) for row in few.train["id"]]
    scale = few.scale
    assert len(chosen) == len(set(chosen)) == REHEARSED_BATCHES * 16
    lengths = lengths_of(encode(train, tokenizer, truncation))

    def padded(rows: list[int]) -> float:
        batches = [rows[at : at + 16] for at in range(0, len(rows), 16)]
        return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches) / len(batches)

    expected = padded(list(LengthGrouped(lengths, 16, seed=0)))
    assert padded(chosen) < 0.7 * expected
    assert scale * padded(chosen) == pytest.approx(expected, rel=0.1)
