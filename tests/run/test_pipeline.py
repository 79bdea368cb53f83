"""The whole chain on a tiny task: what a run's folder holds, what its record says, and that kills do not matter."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import tiny
from plankwise.core.errors import CheckpointError, MethodError, OutputError, RecipeError
from plankwise.core.recipe import read_recipe, to_plain
from plankwise.core.records import read_record
from plankwise.encoder import tokenizer as tokenizers
from plankwise.evaluation.saved_predictions import PREDICTIONS
from plankwise.report.run_report import markdown, table, write_report
from plankwise.run import evaluate as inspect
from plankwise.run.domain.plan import check_domain
from plankwise.run.domain.settings import read_domain
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe

RECIPE = """
name: tiny
task: {{name: table, train: {data}, metrics: [macro_f1, accuracy]}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 4, batch_size: 16, learning_rate: 1.0e-2}}
steps:
  - method: theseus
    modules: 3
    training: {{epochs: 3, batch_size: 16, learning_rate: 5.0e-3}}
  - method: layer_subset
    layers: 2
    training: {{epochs: 2, batch_size: 16, learning_rate: 5.0e-3}}
evaluation: {{bootstrap: 100, rounds: 3, threads: 1, onnx_baseline: false}}
seed: 1
"""


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    data, model = tiny.write_table(folder, 240), tiny.save_source(folder / "source")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(data=data, model=model))
    return path


def recipe(path: Path, *overrides: str) -> Recipe:
    return read_recipe(path, Recipe, overrides)


@pytest.fixture(scope="module")
def finished(recipe_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(check(recipe(recipe_path)), out)
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForSequenceClassification.from_pretrained(folder).state_dict())


def test_the_folder_holds_what_it_promises(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()} - {".lock"}
    assert names == {"record.json", "recipe.yaml", "baseline", "steps", "model", "report.html", "predictions.npz"}
    assert sorted(path.name for path in (finished / "steps").iterdir()) == ["01-theseus", "02-layer_subset"]


def test_the_final_model_loads_without_plankwise(finished: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(finished / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    assert model.config.num_hidden_layers == 2
    assert model.config.id2label == {0: "bad", 1: "good"}
    with np.load(finished / "predictions.npz") as saved:
        expected = saved["compressed"]
    data = check(recipe(finished / "recipe.yaml")).task.splits["test"]
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in data["text"]]
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_the_record_has_its_fixed_names(finished: Path) -> None:
    record = json.loads((finished / "record.json").read_text())
    assert set(record["baseline"]["scores"]) == {"macro_f1", "accuracy"}
    assert set(record["baseline"]["cost"]) == {
        "parameters",
        "size_bytes",
        "compressed_bytes",
        "linear_flops_per_token",
        "train_seconds",
    }
    assert [step["name"] for step in record["steps"]] == ["theseus", "layer_subset"]
    assert all({"settings", "scores", "cost", "train_seconds"} <= set(step) for step in record["steps"])
    final = record["final"]
    assert set(final["retained_performance"]["macro_f1"]) == {"value", "low", "high"}
    assert final["compression_ratio"] == record["baseline"]["cost"]["parameters"] / final["cost"]["parameters"] > 1
    assert final["speedup"] == final["benchmark"]["throughput"]["speedup"] > 0
    assert final["retained_performance"]["macro_f1"]["value"] == pytest.approx(
        final["scores"]["macro_f1"] / record["baseline"]["scores"]["macro_f1"]
    )
    assert {"environment", "data_hashes", "seed", "recipe"} <= set(record)
    sizes = [record["baseline"], *record["steps"]]
    folders = [finished / "baseline", *sorted((finished / "steps").iterdir())]
    for entry, folder in zip(sizes, folders, strict=True):
        assert entry["cost"]["size_bytes"] == (folder / "model.safetensors").stat().st_size


def test_the_baseline_learned_something(finished: Path) -> None:
    """A floor under everything else: a chain that trains nothing would pass most other tests."""
    record = read_record(finished)
    assert record.final is not None
    assert record.baseline is not None
    assert record.baseline.scores["macro_f1"] > record.final.majority_scores["macro_f1"] + 0.2
    assert record.final.scores["macro_f1"] > record.final.majority_scores["macro_f1"] + 0.2


def test_the_report_shows_the_records_numbers_and_no_text(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    record = read_record(finished)
    assert record.final is not None
    assert f"{record.final.scores['macro_f1']:.3f}" in page
    assert not [row["text"] for row in tiny.rows(240) if row["text"] in page]
    assert "tiny" in markdown(table([finished]))


def test_seeds_are_pooled_and_other_examples_refused(finished: Path, recipe_path: Path, tmp_path: Path) -> None:
    run(check(recipe(recipe_path, "seed=2")), tmp_path / "second")
    (row,) = table([finished, tmp_path / "second"])
    scores = [read_record(each).final.scores["macro_f1"] for each in (finished, tmp_path / "second")]  # type: ignore[union-attr]
    assert row.seeds == 2
    assert row.score.value == pytest.approx(np.mean(scores))
    run(check(recipe(recipe_path, "task.split_seed=5")), tmp_path / "third")
    with pytest.raises(CheckpointError, match="different examples"):
        table([finished, tmp_path / "third"])
    write_report([finished, tmp_path / "second"], tmp_path / "both.html")
    assert "seed 2" in (tmp_path / "both.html").read_text()


@pytest.mark.parametrize("stage", ["baseline", "01-theseus", "02-layer_subset", PREDICTIONS, "report.html"])
def test_a_run_killed_anywhere_resumes_to_the_same_model(
    stage: str, finished: Path, recipe_path: Path, tmp_path: Path
) -> None:
    checked, out = check(recipe(recipe_path)), tmp_path / "killed"
    if "." in stage:  # a folder is in the way of the file that the last stage or the report writes
        run(checked, out, until="steps")
        (out / stage / "in the way").mkdir(parents=True)
        with pytest.raises((OSError, OutputError)):
            run(checked, out, resume=True)
        shutil.rmtree(out / stage)
    else:
        with pytest.raises(KeyboardInterrupt):
            run(checked, out, callbacks=[tiny.Kill(stage)])
    run(checked, out, resume=True)
    for name in ("baseline", "steps/01-theseus", "model"):
        one, other = weights(finished / name), weights(out / name)
        assert all(torch.equal(one[key], other[key]) for key in one)
    old, new = read_record(finished), read_record(out)
    assert old.final is not None
    assert new.final is not None
    assert old.final.scores == new.final.scores
    assert not (out / ".work").exists()


def test_resuming_a_finished_run_measures_nothing_again(finished: Path, recipe_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    record = run(check(recipe(recipe_path)), finished, resume=True)
    assert record == read_record(finished)
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed <= {"report.html", "README.md", "recipe.yaml", ".lock"}


def test_another_recipes_folder_is_refused(finished: Path, recipe_path: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"another recipe's run \(it differs in seed\)"):
        run(check(recipe(recipe_path, "seed=7")), finished, resume=True)
    with pytest.raises(OutputError, match="add --resume"):
        run(check(recipe(recipe_path)), finished)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not of a run"):
        run(check(recipe(recipe_path)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_changed_data_is_noticed_on_resume(recipe_path: Path, tmp_path: Path) -> None:
    data = tiny.write_table(tmp_path, 120)
    checked = check(recipe(recipe_path, f"task.train={data}", "steps=[]"))
    run(checked, tmp_path / "run", until="baseline")
    data.write_text(data.read_text().replace("house", "tree"))
    with pytest.raises(OutputError, match="the data changed"):
        run(check(recipe(recipe_path, f"task.train={data}", "steps=[]")), tmp_path / "run", resume=True)


def test_a_baseline_can_be_shared_and_a_foreign_one_is_refused(
    finished: Path, recipe_path: Path, tmp_path: Path
) -> None:
    shared = recipe(recipe_path, "steps.0.modules=2", "name=shared")
    record = run(check(shared), tmp_path / "shared", baseline=finished / "baseline")
    assert record.baseline is not None
    assert record.baseline.train_seconds == read_record(finished).baseline.train_seconds  # type: ignore[union-attr]
    with pytest.raises(OutputError, match="other data, model, settings or seed"):
        run(check(recipe(recipe_path, "seed=3")), tmp_path / "other", baseline=finished / "baseline")


def test_a_run_takes_over_what_another_has_of_it(finished: Path, recipe_path: Path, tmp_path: Path) -> None:
    """Steps that agree are linked, not run; from the first that differs on everything is run again."""
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    other, out = recipe(recipe_path, "steps.1.layers=1", "name=other"), tmp_path / "out"
    record = run(check(other), out, start_from=finished)
    assert [step.settings for step in record.steps] == to_plain(other)["steps"]
    for stage in ("baseline", "steps/01-theseus"):
        assert (out / stage / "model.safetensors").samefile(finished / stage / "model.safetensors")
        assert not (out / stage / "model.safetensors").is_symlink()
    assert not (out / "steps/02-layer_subset/model.safetensors").samefile(
        finished / "steps/02-layer_subset/model.safetensors"
    )
    assert not (out / "model/model.safetensors").samefile(finished / "model/model.safetensors")
    run(check(other), tmp_path / "alone")
    one, same = weights(out / "model"), weights(tmp_path / "alone/model")
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("override", "names"),
    [("seed=3", "seed"), ("baseline.epochs=3", "training"), ("task.metrics=[accuracy]", "metrics")],
)
def test_a_run_of_another_baseline_gives_nothing(
    override: str, names: str, finished: Path, recipe_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=rf"starts from another baseline \(it differs in {names}\)"):
        run(check(recipe(recipe_path, override)), tmp_path / "out", start_from=finished)
    with pytest.raises(CheckpointError, match="there is no run in"):
        run(check(recipe(recipe_path)), tmp_path / "out", start_from=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_run_reads_a_tokenizer_once(recipe_path: Path, tmp_path: Path) -> None:
    """Every stage saves it; a large one takes seconds to read."""
    tokenizers._read.cache_clear()
    one, other = (f"{{method: layer_subset, layers: {layers}, training: {{epochs: 0.1}}}}" for layers in (3, 2))
    steps = f"steps=[{one}, {other}]"
    run(check(recipe(recipe_path, steps, "baseline.epochs=0.1")), tmp_path / "run")
    assert tokenizers._read.cache_info().misses == 1


def copied(run_folder: Path, to: Path) -> Path:
    shutil.copytree(run_folder, to)
    return to


def test_steps_are_run_again_from_one_on(finished: Path, recipe_path: Path, tmp_path: Path) -> None:
    """What is before stays untouched, what follows is as in a run that was never another."""
    out = copied(finished, tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in (out / "steps" / "01-theseus").rglob("*")}
    other = recipe(recipe_path, "steps.1={method: pruning, target: 1.2, examples: 32}")
    record = run(check(other), out, from_step=2)
    assert [step.name for step in record.steps] == ["theseus", "pruning"]
    assert before == {path: path.stat().st_mtime_ns for path in (out / "steps" / "01-theseus").rglob("*")}
    assert sorted(path.name for path in (out / "steps").iterdir()) == ["01-theseus", "02-pruning"]
    assert (out / "notes.txt").exists()
    assert recipe(out / "recipe.yaml") == other
    again = run(check(recipe(recipe_path)), out, from_step=2)
    known = read_record(finished)
    assert again.final is not None
    assert known.final is not None
    assert again.final.scores == known.final.scores
    for name in ("steps/02-layer_subset", "model"):
        one, same = weights(finished / name), weights(out / name)
        assert all(torch.equal(one[key], same[key]) for key in one)
    dropped = run(check(recipe(recipe_path, "steps.1=null", "steps=[]")), out, from_step=1)
    assert dropped.steps == []
    assert not list((out / "steps").iterdir())


@pytest.mark.parametrize(
    ("overrides", "from_step", "message"),
    [
        (["seed=2"], 2, r"differs in seed\); allowed with --from 2: other steps from number 2 on"),
        (["steps.0.modules=2"], 2, r"differs in steps\.0\)"),
        (["steps=[]"], 2, r"differs in steps\.0\)"),
        (["evaluation.rounds=4", "task.split_seed=9"], 1, r"differs in task, evaluation\)"),
    ],
)
def test_a_rerun_of_what_does_not_agree_removes_nothing(
    overrides: list[str], from_step: int, message: str, finished: Path, recipe_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    with pytest.raises(OutputError, match=message):
        run(check(recipe(recipe_path, *overrides)), finished, from_step=from_step)
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}


def test_a_rerun_needs_the_same_data_and_a_stage_to_start_from(
    finished: Path, recipe_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="holds no run, so there are no steps to run again"):
        run(check(recipe(recipe_path)), tmp_path / "new", from_step=1)
    out = copied(finished, tmp_path / "out")
    (out / "steps" / "01-theseus" / "stage.json").unlink()
    with pytest.raises(OutputError, match="01-theseus is not complete, so nothing can go on from it"):
        run(check(recipe(recipe_path)), out, from_step=2)
    checked = check(recipe(recipe_path))
    checked.task.hashes["test"] = "another"  # type: ignore[index]
    with pytest.raises(OutputError, match="the data changed"):
        run(checked, out, from_step=1)
    assert (out / "model").exists()
    assert read_record(out).final is not None


def test_a_rerun_that_is_killed_resumes(finished: Path, recipe_path: Path, tmp_path: Path) -> None:
    out, other = copied(finished, tmp_path / "out"), check(recipe(recipe_path, "steps.1.training.epochs=1"))
    with pytest.raises(KeyboardInterrupt):
        run(other, out, from_step=2, callbacks=[tiny.Kill("02-layer_subset")])
    assert read_record(out).final is None
    run(other, out, resume=True)
    run(other, tmp_path / "alone")
    one, same = weights(out / "model"), weights(tmp_path / "alone" / "model")
    assert all(torch.equal(one[key], same[key]) for key in one)


THREE_STEPS = (
    "keep=last",
    "steps=[{method: layer_subset, layers: 3, training: {epochs: 1}}, {method: layer_subset, layers: 2, "
    "training: {epochs: 1}}, {method: layer_subset, layers: 1, training: {epochs: 1}}]",
)


def test_models_of_steps_are_dropped_as_soon_as_the_next_is_complete(recipe_path: Path, tmp_path: Path) -> None:
    """A run killed in the third step resumes without the first model, and what is left can be run again."""
    checked, out = check(recipe(recipe_path, *THREE_STEPS)), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(checked, out, callbacks=[tiny.Kill("03-layer_subset")])
    has_model = {path.name: (path / "model.safetensors").exists() for path in (out / "steps").iterdir()}
    assert has_model == {"01-layer_subset": False, "02-layer_subset": True}
    assert {path.name for path in (out / "steps" / "01-layer_subset").iterdir()} == {"stage.json"}
    record = run(checked, out, resume=True)
    assert [step.cost.parameters for step in record.steps] == sorted(
        {step.cost.parameters for step in record.steps}, reverse=True
    )
    run(check(recipe(recipe_path, *THREE_STEPS, "keep=all")), tmp_path / "all")
    one, same = weights(out / "model"), weights(tmp_path / "all" / "model")
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert [(out / name / "model.safetensors").exists() for name in ("baseline", "steps/03-layer_subset")] == [True] * 2
    with pytest.raises(OutputError, match=r"02-layer_subset was dropped, as keep: last asks for; allowed: --from 1, 4"):
        run(checked, out, from_step=3)
    # Another run takes over as far as a model is left.
    other = check(recipe(recipe_path, *THREE_STEPS, "name=other", "steps.2.training.epochs=2"))
    taken = run(other, tmp_path / "other", start_from=out, until="steps")
    assert (tmp_path / "other/baseline/model.safetensors").samefile(out / "baseline/model.safetensors")
    assert taken.steps[0].settings == record.steps[0].settings


def test_the_test_split_is_read_by_the_last_stage_alone(recipe_path: Path, tmp_path: Path) -> None:
    """Until the last stage there is no test split: whatever read it earlier would fail."""
    checked = check(recipe(recipe_path))
    held = checked.task.splits.pop("test")
    run(checked, tmp_path / "run", until="steps")
    checked.task.splits["test"] = held
    assert run(checked, tmp_path / "run", resume=True).final is not None


def test_a_damaged_checkpoint_is_refused_on_resume(recipe_path: Path, tmp_path: Path) -> None:
    checked = check(recipe(recipe_path))
    with pytest.raises(KeyboardInterrupt):
        run(checked, tmp_path / "run", callbacks=[tiny.Kill("01-theseus")])
    (weights_file,) = (tmp_path / "run" / ".work").rglob("trained.safetensors")
    content = bytearray(weights_file.read_bytes())
    content[-7] ^= 0xFF
    weights_file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"trained\.safetensors is damaged"):
        run(checked, tmp_path / "run", resume=True)


def test_a_step_that_shrinks_nothing_warns(recipe_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    same = recipe(recipe_path, "steps=[{method: layer_subset, layers: 4, training: {epochs: 0.1}}]")
    run(check(same), tmp_path / "run")
    assert "made the model no smaller" in caplog.text


def test_from_scratch(recipe_path: Path, tmp_path: Path) -> None:
    scratch = (
        "{layers: 4, width: 16, heads: 2, vocabulary: {size: 60}, positions: 32, block: 16, growth: [2, 4],"
        " epochs: [2, 1]}"
    )
    with_scratch = recipe(recipe_path, f"model={{scratch: {scratch}, max_length: 32}}", "steps.0.modules=2", "name=new")
    record = run(check(with_scratch), tmp_path / "run")
    assert (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "baseline").config.num_hidden_layers == 4
    )
    assert (tmp_path / "run" / "pretrained" / "model.safetensors").exists()
    assert record.final is not None


def test_curves_stay_beside_the_model(recipe_path: Path, tmp_path: Path) -> None:
    logged = recipe(recipe_path, "steps=[]", "baseline.log_to=tensorboard", "baseline.epochs=1", "name=logged")
    run(check(logged), tmp_path / "run")
    (events,) = (tmp_path / "run" / "baseline" / "curves").glob("events.out.*")
    accumulated = EventAccumulator(str(events)).Reload()
    assert [event.step for event in accumulated.Scalars("eval/score")] == [11]
    assert len(accumulated.Scalars("train/loss")) == 11
    assert not (tmp_path / "run" / "model" / "curves").exists()


def test_a_logger_that_is_not_installed_is_refused_beforehand(recipe_path: Path) -> None:
    if importlib.util.find_spec("mlflow") is not None:
        pytest.skip("mlflow is installed")
    with pytest.raises(RecipeError, match=r"pip install 'plankwise\[mlflow\]'"):
        check(recipe(recipe_path, "baseline.log_to=mlflow"))


def test_a_run_in_windows_tells_what_only_the_end_of_a_text_tells(recipe_path: Path, tmp_path: Path) -> None:
    """Every long text begins alike; the record, the predictions and the verbs on models that exist agree."""
    lines = ["text,label", *(f"{'the day ' * 9}{row['text']},{int(row['label'] == 'good')}" for row in tiny.rows(240))]
    (tmp_path / "long.csv").write_text("\n".join(lines) + "\n")
    settings = [f"task.train={tmp_path / 'long.csv'}", "task.labels={0: bad, 1: good}", "steps.1.layers=1"]
    settings += ["model.max_length=16", "model.windows={stride: 2, pooling: max}", "baseline.epochs=10"]
    long = recipe(recipe_path, *settings, "name=long")
    record = run(check(long), tmp_path / "run")
    assert record.final is not None
    assert record.baseline is not None
    assert record.baseline.scores["macro_f1"] > record.final.majority_scores["macro_f1"] + 0.2
    assert record.recipe["model"]["windows"] == {"stride": 2, "pooling": "max", "max_windows": 8}
    assert recipe(tmp_path / "run" / "recipe.yaml") == long
    found = inspect.evaluate(tmp_path / "run" / "model", long, "test")["scores"]
    assert {name: each["value"] for name, each in found.items()} == pytest.approx(record.final.scores)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_length": 80}, "max_length 80 is more than the model's 72 positions"),
        ({"max_length": 16, "windows": {"stride": 14}}, "windows.stride 14 is not less than .*; allowed: 0 to 13"),
    ],
)
def test_a_domain_refuses_a_reading_before_its_language_models_are_trained(
    changes: dict[str, Any], message: str, recipe_path: Path, tmp_path: Path
) -> None:
    checked = check(recipe(recipe_path))
    task = {"name": "table", "train": str(checked.recipe.task.train)}  # type: ignore[union-attr]
    pd.DataFrame(tiny.rows(300))[["text"]].to_parquet(tmp_path / "corpus.parquet")
    source, steps = checked.recipe.model.source, [{"method": "layer_subset", "layers": 2}]
    language_model = {
        "name": "lm",
        "task": {"name": "corpus", "files": [str(tmp_path / "corpus.parquet")]},
        "steps": steps,
    }
    (tmp_path / "lm.yaml").write_text(json.dumps({**language_model, "model": {"source": source, "max_length": 16}}))
    tasks = [{"name": "t", "task": task, **changes}]
    domain = {"name": "d", "language_model": "lm.yaml", "contamination": "drop", "tasks": tasks}
    (tmp_path / "d.yaml").write_text(json.dumps(domain))
    with pytest.raises(RecipeError, match=f"tasks: t: {message}"):
        check_domain(tmp_path / "d.yaml", read_domain(tmp_path / "d.yaml"))


def test_a_kill_while_the_recipe_is_written_leaves_a_folder_that_can_be_used(recipe_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / ".lock").touch()
    (out / ".recipe.yaml.k3x9.partial").write_text("name: half a rec")
    quick = recipe(recipe_path, "steps=[]", "baseline.epochs=0.2", "name=quick")
    assert run(check(quick), out, resume=True, until="baseline").baseline is not None
    assert not list(out.glob(".recipe.yaml.*"))


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("{hidden: 1, layer_map: [[9, 0]]}", "steps.0 .theseus.: layer_map .9, 0.: the student has the layers 0 to"),
        ("{source: nowhere}", "steps.0 .theseus.: teacher.source 'nowhere' is not a folder; allowed: baseline, input"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_beforehand(recipe_path: Path, teacher: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        check(recipe(recipe_path, f"steps.0.teacher={teacher}"))
