"""A fine-tuned classifier is a baseline: taken as it is, its labels matched by name, and refused where they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

import tiny
from plankwise.core.errors import ModelError, RecipeError
from plankwise.core.recipe import read_recipe
from plankwise.core.records import Record
from plankwise.encoder.checkpoint import load_trained, save
from plankwise.run.dry_run import estimate
from plankwise.run.evaluate import evaluate
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe

RECIPE = """
name: given
task: {{name: table, train: {data}}}
model: {{source: {model}, max_length: 32}}
baseline: null
steps:
  - method: layer_subset
    layers: 2
    training: {{epochs: 1, batch_size: 16}}
evaluation: {{bootstrap: 100, rounds: 3, threads: 1, onnx_baseline: false}}
"""


def saved(folder: Path, *labels: str, **config: Any) -> Path:
    """Save a classifier whose outputs stand for `labels`, in this order."""
    model = tiny.model(labels=len(labels))
    model.config.id2label, model.config.label2id = dict(enumerate(labels)), {each: at for at, each in enumerate(labels)}
    for name, value in config.items():
        setattr(model.config, name, value)
    save(model, tiny.tokenizer(), folder)
    return folder


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(data=tiny.write_table(tmp_path), model=saved(tmp_path / "m", "good", "bad")))
    return path


def read(path: Path, *overrides: str) -> Recipe:
    return read_recipe(path, Recipe, overrides)


def test_the_model_is_taken_as_it_is_with_its_labels_in_the_tasks_order(recipe_path: Path, tmp_path: Path) -> None:
    record = run(check(read(recipe_path)), tmp_path / "run")
    own = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    taken = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "baseline").eval()
    assert taken.config.id2label == {0: "bad", 1: "good"}
    batch = tiny.batch()
    assert torch.equal(taken(**batch).logits, own(**batch).logits[:, [1, 0]])
    assert record.baseline is not None
    assert record.baseline.settings["training"] is None
    assert record.baseline.train_seconds == 0
    assert record.final is not None
    found = evaluate(tmp_path / "run" / "baseline", read(recipe_path), "test")["scores"]
    assert {name: each["value"] for name, each in found.items()} == pytest.approx(record.baseline.scores)


def test_names_are_given_for_labels_that_say_nothing(recipe_path: Path, tmp_path: Path) -> None:
    saved(tmp_path / "m", "LABEL_0", "LABEL_1")
    named = read(recipe_path, "model.labels={LABEL_0: good, LABEL_1: bad}", "steps=[]")
    run(check(named), tmp_path / "run", until="steps")
    batch = tiny.batch()
    own, taken = (load_trained(str(tmp_path / name)) for name in ("m", "run/baseline"))
    assert torch.equal(taken(**batch).logits, own(**batch).logits[:, [1, 0]])
    assert read(tmp_path / "run" / "recipe.yaml") == named


REFUSED: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "other labels": (
        {"labels": ("LABEL_0", "LABEL_1")},
        [],
        r"2 labels \(LABEL_0, LABEL_1\).*2 labels \(bad, good\).*--set",
    ),
    "fewer than the task": ({"labels": ("bad", "fair", "fine")}, [], "the labels of .* are not those of the task"),
    "more than the task": ({"labels": ("bad", "good", "so")}, [], r"3 labels \(bad, good, so\).*task\.classes"),
    "no such label of the model": (
        {"labels": ("bad", "LABEL_1")},
        ["model.labels={LABEL_2: good}"],
        r"names 'LABEL_2', which is no label of .*\(bad, LABEL_1\)",
    ),
    "no such label of the task": (
        {"labels": ("bad", "LABEL_1")},
        ["model.labels={LABEL_1: fine}"],
        r"names 'fine', which is no label of the task: .*\(bad, LABEL_1\).*\(bad, good\)",
    ),
    "one name for two": (
        {"labels": ("a", "b", "c")},
        ["model.labels={a: bad, b: good, c: good}"],
        "one name to two labels",
    ),
    "several labels at once": (
        {"labels": ("bad", "good"), "problem_type": "multi_label_classification"},
        [],
        "problem_type 'multi_label_classification', the task is of 'single_label_classification'",
    ),
    "one number": (
        {"labels": ("LABEL_0",), "problem_type": None},
        [],
        "answers with one number, as rerankers",
    ),
    "regressor": ({"labels": ("bad", "good"), "problem_type": "regression"}, [], "answers with 2 numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_match_is_refused_before_anything_is_written(
    case: str, recipe_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, overrides, message = REFUSED[case]
    saved(tmp_path / "m", *config.pop("labels"), **config)
    with pytest.raises(ModelError, match=message):
        check(read(recipe_path, *overrides))
    options = [each for override in overrides for each in ("--set", override)]
    assert tiny.call(monkeypatch, "run", recipe_path, "--out", tmp_path / "run", *options) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_model_with_another_head_is_refused_before_the_data_is_read(recipe_path: Path, tmp_path: Path) -> None:
    tokens = AutoModelForTokenClassification.from_config(tiny.model().config)
    for name, model in {"lm": tiny.masked_lm(), "tokens": tokens, "encoder": tiny.model().base_model}.items():
        save(model, tiny.tokenizer(), tmp_path / name)
        with pytest.raises(ModelError, match=rf"{name} is a Bert\w+, not a classifier of texts"):
            check(read(recipe_path, f"model.source={tmp_path / name}", f"task.train={tmp_path / 'none.csv'}"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.labels={a: bad}", "baseline={epochs: 1}"], "model.labels names the labels of a fine-tuned classifier"),
        (["model.scratch={}", "model.source=null"], "baseline: null takes a fine-tuned classifier as it is; allowed"),
        (["model.labels={a: ''}"], "model.labels"),
        (["task.classes=[bad, bad]"], "the label 'bad' is named twice"),
    ],
)
def test_settings_that_would_be_ignored_are_refused(recipe_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(recipe_path, *overrides)


def test_labels_of_credentialed_text_are_not_shown(recipe_path: Path, tmp_path: Path) -> None:
    saved(tmp_path / "m", "LABEL_0", "LABEL_1")
    with pytest.raises(ModelError) as refused:
        check(read(recipe_path, "task.access=credentialed"))
    assert "LABEL_1" in str(refused.value)
    assert "good" not in str(refused.value)


def test_a_class_that_no_row_has_stays_in_the_head_and_harms_no_score(recipe_path: Path, tmp_path: Path) -> None:
    """The classes are in an order of their own, and the one that never occurs is in the middle."""
    saved(tmp_path / "m", "bad", "good", "rare")
    record = run(check(read(recipe_path, "task.classes=[good, rare, bad]")), tmp_path / "run")
    model = load_trained(str(tmp_path / "run" / "model"))
    assert model.config.id2label == {0: "good", 1: "rare", 2: "bad"}
    assert record.task["labels"] == ["good", "rare", "bad"]
    assert record.final is not None
    numbers = [*record.final.scores.values(), *record.final.majority_scores.values()]
    assert np.isfinite(numbers).all()
    # Over three classes: the majority has at most one F1 of 1, the absent class counts as zero for both.
    assert record.final.majority_scores["macro_f1"] < 1 / 3


def test_a_killed_run_resumes_and_a_dry_run_plans(recipe_path: Path, tmp_path: Path) -> None:
    checked = check(read(recipe_path))
    assert [row["stage"] for row in estimate(checked)] == ["01-layer_subset"]
    with pytest.raises(KeyboardInterrupt):
        run(checked, tmp_path / "killed", until="steps", callbacks=[tiny.Kill("01-layer_subset")])
    run(checked, tmp_path / "killed", resume=True, until="steps")
    run(checked, tmp_path / "whole", until="steps")
    one, other = (load_trained(str(tmp_path / name / "steps/01-layer_subset")) for name in ("killed", "whole"))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one.parameters(), other.parameters(), strict=True))


def test_compress_takes_a_model_and_says_so(
    recipe_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The recipe says how to train a baseline, and names no model at all."""
    text = recipe_path.read_text().replace("baseline: null", "baseline: {epochs: 1}")
    recipe_path.write_text(text.replace(f"source: {tmp_path / 'm'}, ", ""))
    options = ["--out", tmp_path / "run", "--json"]
    assert tiny.call(monkeypatch, "compress", recipe_path, "--baseline", tmp_path / "m", *options) == 0
    assert f"{tmp_path / 'm'} is taken as it is, in the place of the recipe's model.source and baseline" in caplog.text
    record = Record.model_validate(json.loads(capsys.readouterr().out))
    assert record.recipe["model"]["source"] == str(tmp_path / "m")
    assert record.recipe["model"]["max_length"] == 32
    assert record.recipe["baseline"] is None
    assert tiny.call(monkeypatch, "compress", recipe_path, "--baseline", tmp_path / "m", *options, "--resume") == 0
    # The model of a step, or of a whole run, is a classifier like any other.
    step = tmp_path / "run" / "steps" / "01-layer_subset"
    again = ["--out", tmp_path / "again", "--set", "steps=[]", "--json"]
    assert tiny.call(monkeypatch, "compress", recipe_path, "--baseline", step, *again) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["baseline"]["train_seconds"] == 0


def test_finetune_has_nothing_to_train(
    recipe_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny.call(monkeypatch, "finetune", recipe_path, "--out", tmp_path / "run") == 2
    assert "there is nothing to train" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
