"""Finished runs: seeds of a recipe pooled, rows joined by their ids."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from plankwise.core.errors import CheckpointError
from plankwise.core.recipe import read_recipe
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.evidence import Question
from plankwise.evaluation.saved_predictions import read_predictions, save_predictions
from plankwise.run.compare.runs import compare_runs, in_order, is_run
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe

RECIPE = """
name: tiny
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 1, batch_size: 16, learning_rate: 1.0e-2}}
steps: [{{method: layer_subset, layers: 1, training: {{epochs: 1, batch_size: 16, learning_rate: 1.0e-2}}}}]
evaluation: {{bootstrap: 100, rounds: 3, threads: 1, onnx_baseline: false}}
"""
QUESTION = Question(metrics=("macro_f1", "accuracy"), resamples=200)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    data, model = tiny.write_table(folder, 200), tiny.save_source(folder / "source")
    (folder / "recipe.yaml").write_text(RECIPE.format(data=data, model=model))
    for seed in (1, 2):
        run(check(read_recipe(folder / "recipe.yaml", Recipe, [f"seed={seed}"])), folder / f"run-{seed}")
    return folder


def test_seeds_are_pooled_and_compared_with_each_other(place: Path) -> None:
    document = compare_runs([place / "run-1", place / "run-2"], QUESTION)
    (found,) = document["comparisons"].values()
    assert list(document["comparisons"]) == ["tiny"]
    assert found["seeds"] == 2
    records = [json.loads((place / f"run-{seed}" / "record.json").read_text()) for seed in (1, 2)]
    for side, scores in (("baseline", "baseline"), ("compressed", "final")):
        mean = np.mean([record[scores]["scores"]["macro_f1"] for record in records])
        assert found["metrics"]["macro_f1"][side]["value"] == pytest.approx(mean)
    one, other = (read_predictions(place / f"run-{seed}")[1].baseline.argmax(axis=1) for seed in (1, 2))
    assert found["retraining_floor"]["label_loyalty"] == pytest.approx((one == other).mean())
    assert "TF-IDF with logistic regression" in found["metrics"]["macro_f1"]["floors"]


def test_rows_are_joined_by_their_ids(place: Path, tmp_path: Path) -> None:
    shuffled = tmp_path / "shuffled"
    shutil.copytree(place / "run-2", shuffled)
    ids, pair = read_predictions(shuffled)
    order = np.random.default_rng(0).permutation(len(ids))
    moved = Pair(pair.labels[order], pair.baseline[order], pair.compressed[order])
    save_predictions(shuffled / "predictions.npz", [ids[each] for each in order], moved)
    found = compare_runs([place / "run-1", shuffled], QUESTION)
    assert json.dumps(found) == json.dumps(compare_runs([place / "run-1", place / "run-2"], QUESTION))


def test_a_run_whose_data_is_gone_is_compared_without_floors(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(place / "run-1", alone)
    record = json.loads((alone / "record.json").read_text())
    record["recipe"]["task"]["train"] = str(tmp_path / "gone.csv")
    (alone / "record.json").write_text(json.dumps(record))
    (found,) = compare_runs([alone], QUESTION)["comparisons"].values()
    assert found["metrics"]["macro_f1"]["floors"] == {}
    assert {each["by"] for each in found["slices"]} <= {"class"}
    assert "without floors and slices by text, as the task cannot be loaded" in caplog.text


def changed(place: Path, target: Path, change: Any) -> Path:
    shutil.copytree(place / "run-1", target)
    record = json.loads((target / "record.json").read_text())
    change(record)
    (target / "record.json").write_text(json.dumps(record))
    return target


def test_runs_that_do_not_belong_together_are_refused(place: Path, tmp_path: Path) -> None:
    other = changed(place, tmp_path / "other", lambda record: record["task"].update(name="another"))
    with pytest.raises(CheckpointError, match=r"other is of another task than .*run-1: its name is another"):
        compare_runs([place / "run-1", other], QUESTION)
    retested = changed(place, tmp_path / "retested", lambda record: record["data_hashes"].update(test="x"))
    with pytest.raises(CheckpointError, match="retested was tested on other data"):
        compare_runs([place / "run-1", retested], QUESTION)
    with pytest.raises(CheckpointError, match="is named twice; it would count as two seeds"):
        compare_runs([place / "run-1", place / "run-1"], QUESTION)
    unfinished = changed(place, tmp_path / "unfinished", lambda record: record.update(final=None))
    with pytest.raises(CheckpointError, match="is not finished"):
        compare_runs([unfinished], QUESTION)
    pair = Pair(np.array([0, 1]), np.eye(2), np.eye(2))
    with pytest.raises(CheckpointError, match="was tested on other examples"):
        in_order(Path("x"), (["a", "b"], pair), ["a", "c"])


def test_the_verb_takes_runs_and_refuses_a_mixture(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert is_run(str(place / "run-1"))
    assert not is_run(str(place / "run-1" / "model"))
    assert tiny.call(monkeypatch, "compare", place / "run-1", place / "run-2") == 0
    assert "2 seeds" in capsys.readouterr().out
    assert tiny.call(monkeypatch, "compare", place / "run-1", place / "run-1" / "model") == 2
    assert "is not a finished run, and others are" in capsys.readouterr().err
    assert tiny.call(monkeypatch, "compare", place / "run-1", "--data", place / "data.csv") == 2
    assert "--data is for models" in capsys.readouterr().err
    for option, value in (("--train", "x.csv"), ("--slice", "source"), ("--split", "development"), ("--text", "t")):
        assert tiny.call(monkeypatch, "compare", place / "run-1", option, value) == 2
        assert "is for models; runs have saved" in capsys.readouterr().err
