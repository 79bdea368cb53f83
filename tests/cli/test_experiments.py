"""Flags of verbs that train: they set the recipe's keys, so that a run resumes with the same ones only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import tiny

RECIPE = """\
name: tiny
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 16}}
baseline: {{epochs: 1, batch_size: 32}}
"""


def test_deduplicate_sets_the_key_and_is_needed_to_resume(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = tiny.rows(60)
    lines = [f"{row['text']},{row['label']}" for row in [*rows, *rows]]
    (tmp_path / "data.csv").write_text("\n".join(["text,label", *lines]))
    model, recipe, out = tiny.save_source(tmp_path / "model", layers=1), tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(RECIPE.format(data=tmp_path / "data.csv", model=model))

    def call(*more: str) -> int:
        return tiny.call(monkeypatch, "finetune", recipe, "--out", out, *more)

    assert call("--deduplicate") == 0
    assert yaml.safe_load((out / "recipe.yaml").read_text())["task"]["deduplicate"] is True
    kept = json.loads((out / "record.json").read_text())["task"]["rows"]
    assert kept["test"] == 24
    assert kept["train"] + kept["development"] < 96
    dropped = [int(message.split()[1]) for message in caplog.messages if "dropped" in message]
    assert kept["train"] + kept["development"] + sum(dropped) == 96
    assert call("--deduplicate", "--resume") == 0
    capsys.readouterr()
    assert call("--resume") == 2
    assert "it differs in task" in capsys.readouterr().err


def test_deduplicate_is_refused_where_a_task_has_no_such_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: d\ntask: {name: docstrings}\nmodel: {source: none}\n")
    assert tiny.call(monkeypatch, "run", recipe, "--out", tmp_path / "run", "--deduplicate") == 2
    error = capsys.readouterr().err
    assert "--set task.deduplicate: unknown key 'deduplicate'" in error
    assert error.count("\n") == 1
