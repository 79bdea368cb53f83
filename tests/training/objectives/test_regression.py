"""Scores of texts, from the recipe to the record, and every method on them."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plankwise
import tiny
from plankwise.core.errors import ModelError, PlankwiseError
from plankwise.core.recipe import read_recipe
from plankwise.data.task import LabelledText, Task, build_task
from plankwise.deploy.predictor import Predictor
from plankwise.methods.checkpoint import Checkpoint
from plankwise.methods.distillation import Distillation, Student
from plankwise.methods.layer_subset import LayerSubset
from plankwise.methods.learned_pruning import LearnedPruning
from plankwise.methods.low_rank import LowRank
from plankwise.methods.method import Method
from plankwise.methods.pruning import Pruning
from plankwise.methods.quantization import Quantization
from plankwise.methods.registry import METHODS
from plankwise.methods.theseus import Theseus
from plankwise.methods.unstructured import Unstructured
from plankwise.methods.vocabulary import TrimmedVocabulary
from plankwise.report.run_report import write_report
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe
from plankwise.training.fit import Training
from plankwise.training.objectives.regression import Regression
from plankwise.training.on_task import train_on_task

QUICK = Training(epochs=1, batch_size=16, learning_rate=2e-3, precision="fp32", evaluations_per_epoch=1)
OTHER = tiny.save_source(Path(tempfile.mkdtemp(prefix="plankwise-tests-")) / "other", layers=3)
CASES: list[Method] = [
    Theseus(modules=2, training=QUICK),
    LayerSubset(layers=2, training=QUICK),
    LearnedPruning(target=1.3, search=0.5, training=QUICK),
    Distillation(student=Student(layers=2), training=QUICK),
    Pruning(target=2.0, neuron_step=4, examples=48),
    Unstructured(sparsity=0.6, training=QUICK),
    LowRank(embeddings=0.5, feed_forward=0.5),
    TrimmedVocabulary(minimum_count=8),
    Quantization(examples=48),
    Checkpoint(source=str(OTHER), training=QUICK),
]
RECIPE = """
name: scores
task: {{name: table, train: {data}, text: text, score: kindness}}
model: {{source: {model}, max_length: 32}}
baseline: {{epochs: 8, batch_size: 16, learning_rate: 5.0e-3}}
evaluation: {{bootstrap: 200}}
steps:
  - {{method: layer_subset, layers: 2, teacher: {{}}, training: {{epochs: 2, batch_size: 16, learning_rate: 5.0e-3}}}}
"""


def kindness(row: LabelledText) -> float:
    """How many kind words a text has, less its unkind ones."""
    words = str(row["text"]).split()
    return float(sum(word in tiny.GOOD for word in words) - sum(word in tiny.BAD for word in words))


def scored(count: int, seed: int) -> list[LabelledText]:
    return [{**row, "label": kindness(row)} for row in tiny.rows(count, seed)]


@functools.cache
def task(train: int = 96, other: int = 32) -> Task:
    splits = {"train": scored(train, 1), "development": scored(other, 2), "test": scored(other, 3)}
    return build_task("kindness", splits, ("spearman", "pearson"), kind="regression")


def regressor(layers: int = 4) -> Any:
    return Regression().new_model(tiny.model(layers=layers).config, ("score",))


def write(folder: Path, count: int = 300) -> Path:
    path = folder / "scores.jsonl"
    rows = [json.dumps({"text": row["text"], "kindness": row["label"]}) for row in scored(count, 4)]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_every_method_is_here() -> None:
    assert {*map(type, CASES)} == set(METHODS)


@pytest.mark.parametrize("method", CASES, ids=lambda each: type(each).__name__)
def test_every_method_returns_a_regressor_that_reloads(method: Method, tmp_path: Path) -> None:
    job = tiny.job(tmp_path / "work", task=task().without_test())
    small = method.compress(regressor(), job)
    plankwise.save(small.model, small.tokenizer, tmp_path / "model")
    again = plankwise.load(tmp_path / "model")
    encoded = small.tokenizer([row["text"] for row in scored(4, 5)], padding=True, return_tensors="pt")
    with torch.inference_mode():
        assert torch.equal(again(**encoded).logits, small.model.eval()(**encoded).logits)
    assert (again.config.problem_type, again.config.num_labels) == ("regression", 1)
    assert np.ptp(again(**encoded).logits.detach().numpy()) > 0


def test_a_regressor_learns_from_scores(tmp_path: Path) -> None:
    job = tiny.job(tmp_path, task=task(300).without_test())
    model = regressor(2)
    before = Regression().score(model, job, "development").scores
    train_on_task(model, job, Training(epochs=8, learning_rate=5e-3, batch_size=16), "baseline")
    after = Regression().score(model, job, "development").scores
    assert before["spearman"] < 0.5 < 0.85 < after["spearman"]
    assert after["mse_loss"] < 0.3 * before["mse_loss"]


def test_a_run_compares_scores_and_reports_them(tmp_path: Path) -> None:
    data, model = write(tmp_path), tiny.save_source(tmp_path / "source", layers=3)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(data=data, model=model))
    record = run(check(read_recipe(tmp_path / "recipe.yaml", Recipe)), tmp_path / "run")
    assert record.final is not None
    assert record.final.baseline_intervals["spearman"].value > 0.8
    kept = record.final.retained_performance["spearman"]
    assert kept is not None
    assert kept.value > 0.9
    assert record.final.majority_scores["pearson"] == 0.0
    assert record.final.behaviour["rank_correlation"] > 0.8
    write_report([tmp_path / "run"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "rank_correlation" in page
    assert ">nan" not in page
    [answer] = Predictor(tmp_path / "run/model").predict(["fine lovely the day"])
    assert answer.score > 0.5
    assert answer.labels == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "single_label_classification", "labels": 2}, "chooses among 2 labels; allowed: one output"),
        ({"problem_type": "regression", "labels": 2}, "answers with 2 numbers"),
        ({"problem_type": None, "labels": 1}, "reads its scores through a sigmoid, and the task is scored on numbers"),
    ],
)
def test_a_baseline_that_does_not_score_is_refused(change: dict[str, Any], message: str) -> None:
    model = tiny.model(layers=1, labels=change["labels"])
    model.config.problem_type = change["problem_type"]
    with pytest.raises(ModelError, match=message):
        Regression().check_baseline(model.config, "m", task(), None)


def test_class_weights_are_refused(tmp_path: Path) -> None:
    data, model = write(tmp_path, 40), tiny.save_source(tmp_path / "source", layers=1)
    recipe = RECIPE.format(data=data, model=model) + "objective: {class_weights: balanced}\n"
    (tmp_path / "recipe.yaml").write_text(recipe)
    with pytest.raises(PlankwiseError, match="class_weights balanced is for classes; the task has a score"):
        check(read_recipe(tmp_path / "recipe.yaml", Recipe))


def test_labels_drawn_around_its_own_answers_have_a_gradient_of_expectation_zero() -> None:
    model = regressor(1)
    loss = Regression().own_label_loss(torch.Generator().manual_seed(0))
    outputs = model(**tiny.batch(64))
    [gradient] = torch.autograd.grad(loss(outputs, {}), outputs.logits)
    assert gradient.shape == (64, 1)
    assert abs(float(gradient.sum())) < 0.4  # the mean of 64 draws
    assert float(gradient.std() * 64) == pytest.approx(1, abs=0.25)
