"""A run that is refused late leaves what it found; what was trained before stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tiny
from plankwise.core.errors import CheckpointError, ModelError, OutputError, PlankwiseError, RecipeError, TrainingError
from plankwise.core.recipe import read_recipe
from plankwise.report.run_report import check_page, table
from plankwise.run import stages
from plankwise.run.folder import STAGE, RunFolder
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe
from plankwise.training.checkpoints import SEAL

RECIPE = """
name: tiny
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 1, batch_size: 32}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "given").mkdir()
    data, model = tiny.write_table(tmp_path / "given"), tiny.save_source(tmp_path / "given" / "source")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    (tmp_path / "given" / "recipe.yaml").write_text(RECIPE.format(data=data, model=model))
    return read_recipe(tmp_path / "given" / "recipe.yaml", Recipe)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "masking.rate=0.3",
            "masking is for training a language model; allowed: with a task of name 'corpus', or with",
        ),
        ("model.labels={a: b}", "model.labels names the labels of a fine-tuned classifier; allowed: with baseline: nu"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(
    recipe: Recipe, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(tmp_path / "given" / "recipe.yaml", Recipe, [override])


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.rglob("*"))


@pytest.mark.parametrize("there", [None, [], [".lock"]], ids=["new", "empty", "with a lock"])
def test_weights_that_are_cut_off_leave_nothing(recipe: Recipe, tmp_path: Path, there: list[str] | None) -> None:
    out = tmp_path / "runs" / "of" / "mine"
    if there is not None:
        out.mkdir(parents=True)
    before = names(tmp_path)
    for name in there or ():
        (out / name).write_text("")
    with pytest.raises(ModelError, match="cannot load the weights"):
        run(check(recipe), out, resume=True)
    assert names(tmp_path) == before


@pytest.mark.parametrize("made", [f"baseline/{STAGE}", f".work/baseline/checkpoint-3/{SEAL}"])
def test_what_was_trained_stays(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str) -> None:
    def fail(self: stages.Stages) -> None:
        (tmp_path / "out" / made).parent.mkdir(parents=True)
        (tmp_path / "out" / made).write_text("")
        raise TrainingError("the loss is nan")

    monkeypatch.setattr(stages.Stages, "baseline", fail)
    with pytest.raises(TrainingError):
        run(check(recipe), tmp_path / "out")
    assert (tmp_path / "out" / made).exists()
    assert (tmp_path / "out" / "recipe.yaml").exists()
    assert not (tmp_path / "out" / ".lock").exists()


def test_a_run_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    one, other = RunFolder(tmp_path / "out", {"name": "a"}), RunFolder(tmp_path / "out", {"name": "a"})
    with one.claimed(resume=False):
        (tmp_path / "out" / ".work").mkdir()
        (tmp_path / "out" / ".work" / "half").write_text("")
        with pytest.raises(OutputError, match="another process is writing"), other.claimed(resume=True):
            pass
        assert names(tmp_path / "out") == [".lock", ".work", "half", "recipe.yaml"]
    assert names(tmp_path / "out") == [".work", "half", "recipe.yaml"]


def test_parts_that_a_kill_left_are_removed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out", {"name": "a"})
    with folder.claimed(resume=False):
        pass
    for name in (".baseline.partial", "steps/.01-theseus.partial", ".work"):
        (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out" / ".record.json.k3x9.partial").write_text("")
    with folder.claimed(resume=True):
        assert names(tmp_path / "out") == [".lock", ".work", "recipe.yaml", "steps"]


def test_a_recipe_of_the_folder_that_is_a_pipe_is_no_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(OutputError, match="another recipe's run"):
        RunFolder(tmp_path, {"name": "a"}).refuse_taken(resume=True)


def test_a_run_counts_once_and_its_files_are_no_page(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is named twice; it would count as two seeds"):
        table([tmp_path / "run", tmp_path / "other", tmp_path / "other" / ".." / "run"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text("{}")
    for name in ("record.json", "new.txt"):
        with pytest.raises(OutputError, match=r"in a run's folder, .*; allowed there: a .html file"):
            check_page([tmp_path / "run"], tmp_path / "run" / name)
    check_page([tmp_path / "run"], tmp_path / "run" / "page.html")
    check_page([tmp_path / "run"], tmp_path / "page")
    with pytest.raises(PlankwiseError, match=r"record.json is not a record of a run"):
        table([tmp_path / "run"])
