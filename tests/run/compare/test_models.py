"""Models of several origins on the same rows, joined by row and by name of label."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

import tiny
from plankwise.core.errors import DataError, ModelError, RecipeError
from plankwise.data.given.columns import ColumnOptions
from plankwise.deploy.export.export import export
from plankwise.deploy.predictor import Predictor
from plankwise.evaluation.floors import MAJORITY, MEAN, OVERLAP, RIDGE, TF_IDF
from plankwise.run.compare.models import CompareRequest, compare_models
from plankwise.run.compare.rows import FileOptions, rows_of_files, rows_of_split


def save_model(folder: Path, labels: Sequence[str] = tiny.LABELS, seed: int = 0, layers: int = 2) -> Path:
    model = tiny.model(layers=layers, labels=len(labels), seed=seed)
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def swapped(folder: Path, target: Path) -> Path:
    """Save the same model with its two labels in the other order."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    layer = model.classifier
    layer.weight.data, layer.bias.data = layer.weight.data[[1, 0]].clone(), layer.bias.data[[1, 0]].clone()
    labels = [model.config.id2label[index] for index in (1, 0)]
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    model.save_pretrained(target)
    tiny.tokenizer().save_pretrained(target)
    return target


def write_rows(path: Path, count: int, seed: int, **more: Sequence[Any]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label", *more])
        for number, row in enumerate(tiny.rows(count, seed)):
            table.writerow([row["text"], row["label"], *(column[number] for column in more.values())])
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    save_model(folder / "large", layers=4)
    save_model(folder / "small", seed=1)
    swapped(folder / "large", folder / "swapped")
    export(folder / "large", folder / "artefact", to="onnx", precision="fp32")
    write_rows(folder / "data.csv", 120, 1, source=["forum", "news"] * 60)
    write_rows(folder / "dev.csv", 60, 2)
    write_rows(folder / "train.csv", 200, 3)
    return folder


def request_of(place: Path, *compressed: str, **more: Any) -> CompareRequest:
    fields: dict[str, Any] = {"data": (place / "data.csv",), "resamples": 200}
    given = {"baseline": str(place / "large"), "compressed": tuple(str(place / each) for each in compressed)}
    return CompareRequest(**{**fields, **given, **more})


def test_a_model_with_its_labels_in_another_order_and_its_artefact_agree_with_it(place: Path) -> None:
    document = compare_models(request_of(place, "swapped", "artefact", "small"))
    found = {Path(name).name: each for name, each in document["comparisons"].items()}
    for same in ("swapped", "artefact"):
        assert found[same]["behaviour"]["label_loyalty"] == 1.0
        assert found[same]["metrics"]["macro_f1"]["difference"]["value"] == 0.0
        assert found[same]["verdict"] == "non-inferior"
    assert found["small"]["behaviour"]["probability_loyalty"] < 0.999
    assert document["rows"] == 120
    assert document["classes"] == list(tiny.LABELS)
    assert not any(str(row["text"]) in json.dumps(document) for row in tiny.rows(120, 1))


def test_scores_are_those_of_the_models(place: Path) -> None:
    found = next(iter(compare_models(request_of(place, "small", metrics=("accuracy",)))["comparisons"].values()))
    rows = tiny.rows(120, 1)
    for side, name in (("baseline", "large"), ("compressed", "small")):
        answers = Predictor(place / name).predict([str(row["text"]) for row in rows])
        right = [answer.label == row["label"] for answer, row in zip(answers, rows, strict=True)]
        assert found["metrics"]["accuracy"][side]["value"] == pytest.approx(np.mean(right))


def test_train_gives_floors_and_columns_give_slices(place: Path) -> None:
    asked = request_of(
        place,
        "small",
        train=(place / "train.csv",),
        development=(place / "dev.csv",),
        slice_columns=("source",),
        retrained=str(place / "small"),
    )
    found = next(iter(compare_models(asked)["comparisons"].values()))
    floors = found["metrics"]["macro_f1"]["floors"]
    assert list(floors) == [MAJORITY, TF_IDF]
    assert floors[TF_IDF]["score"] > 0.9  # words decide this task; a model with random weights knows nothing
    assert not floors[TF_IDF]["cleared"]
    kinds = {each["by"] for each in found["slices"]}
    assert {"class", "length", "source"} <= kinds
    assert {each["slice"] for each in found["slices"] if each["by"] == "source"} == {"forum", "news"}
    assert found["calibration"]["baseline"]["fitted_on"] == "development"
    assert found["retraining_floor"] == {**found["behaviour"]}


def test_models_of_several_seeds_are_pooled(place: Path) -> None:
    asked = request_of(place, "small", also=((str(place / "small"), str(place / "large")),))
    found = next(iter(compare_models(asked)["comparisons"].values()))
    alone = next(iter(compare_models(request_of(place, "small"))["comparisons"].values()))
    assert (found["seeds"], alone["seeds"]) == (2, 1)
    assert found["metrics"]["macro_f1"]["difference"]["value"] == pytest.approx(
        0
    )  # the second pair is the first, turned
    assert found["retraining_floor"]["label_loyalty"] == alone["behaviour"]["label_loyalty"]


def test_a_recipe_gives_all_of_it(place: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    files = {
        part: str(place / f"{name}.csv")
        for part, name in (("train", "train"), ("development", "dev"), ("test", "data"))
    }
    recipe.write_text(json.dumps({"name": "r", "task": {"name": "table", **files}, "model": {"source": "none"}}))
    by_recipe = compare_models(request_of(place, "small", data=(), recipe=recipe))
    asked = request_of(place, "small", train=(place / "train.csv",), development=(place / "dev.csv",))
    assert json.dumps(by_recipe) == json.dumps(compare_models(asked))
    on_development = compare_models(request_of(place, "small", data=(), recipe=recipe, split="development"))
    assert on_development["rows"] == 60


def test_models_that_score_are_compared_by_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, layers, problem in (("large", 3, "regression"), ("small", 2, "regression"), ("ranker", 2, None)):
        model = tiny.model(layers=layers, labels=1)
        model.config.problem_type = problem
        model.save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    texts = [
        (str(row["text"]), str(other["text"])) for row, other in zip(tiny.rows(160, 1), tiny.rows(160, 2), strict=True)
    ]
    own = Predictor(tmp_path / "large").logits(texts)[:, 0]
    noise = np.random.default_rng(0).normal(size=160)
    given = [(*pair, str(score)) for pair, score in zip(texts, own + own.std() * noise, strict=True)]
    for name, rows in (("data", given[:120]), ("train", given[120:])):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("sentence1", "sentence2", "similarity"), *rows])
    asked = request_of(tmp_path, "small", train=(tmp_path / "train.csv",))
    document = compare_models(asked)
    [found] = document["comparisons"].values()
    assert (document["classes"], document["metrics"]) == ([], ["spearman", "pearson"])
    pearson = found["metrics"]["pearson"]
    expected = np.corrcoef(own[:120], [float(row[2]) for row in given[:120]])[0, 1]
    assert pearson["baseline"]["value"] == pytest.approx(expected, abs=1e-4)
    assert set(pearson["floors"]) == {MEAN, RIDGE, OVERLAP}
    assert found["calibration"] is None
    assert {"true score", "length"} <= {each["by"] for each in found["slices"]}
    assert -1 <= found["behaviour"]["rank_correlation"] <= 1
    with pytest.raises(ModelError, match="ranker is a sigmoid_score model and the baseline a regression one"):
        compare_models(request_of(tmp_path, "ranker"))
    with pytest.raises(RecipeError, match="the metric 'macro_f1' is for classes"):
        compare_models(request_of(tmp_path, "small", metrics=("macro_f1",)))
    monkeypatch.chdir(tmp_path)
    assert tiny.call(monkeypatch, "compare", "large", "small", "--data", "data.csv") in (0, 3)
    assert "rank correlation with the baseline" in capsys.readouterr().out.replace("\n", " ")


def test_labels_of_a_task_take_the_order_of_the_model() -> None:
    task = tiny.task()
    forward, backward = (rows_of_split(task, "test", labels) for labels in (tiny.LABELS, tiny.LABELS[::-1]))
    assert (forward.labels == 1 - backward.labels).all()
    assert forward.texts == backward.texts


def test_several_labels_are_flags_by_class(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('text,labels\na b,"x,y"\nc d,\ne f,y\n')
    options = FileOptions(ColumnOptions(label="labels", separator=","))
    rows = rows_of_files([path], ["y", "x"], options, kind="multi_label")
    assert rows.labels.tolist() == [[1, 1], [1, 0]]
    assert "1 rows without a label are left out" in rows.said


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "other labels": ({"compressed": ("other",)}, ModelError, r"other has the labels \['a', 'b'\], the baseline "),
    "no labels": ({"data": ("texts.txt",)}, DataError, "no row has a label; models are compared by their scores"),
    "a label under another name": (
        {"data": ("verdicts.csv",)},
        DataError,
        "no row has a label; .*; verdicts.csv: give --label verdict if its column 'verdict'",
    ),
    "no column": ({"slice_columns": ("sorce",)}, DataError, "sorce"),
    "text has no columns": (
        {"data": ("data.csv", "texts.txt"), "slice_columns": ("source",)},
        DataError,
        "one text a line",
    ),
    "metric": ({"metrics": ("f1",)}, RecipeError, "--metric f1: .*macro_f1"),
    "margin": ({"margin": 0.0}, RecipeError, "--margin 0: allowed: above 0 and below 1"),
    "class margin": ({"class_margin": 1.5}, RecipeError, "--class-margin 1.5: allowed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused(case: str, place: Path, tmp_path: Path) -> None:
    changes, error, message = REFUSED[case]
    save_model(place / "other", labels=("a", "b"))
    (place / "texts.txt").write_text("the day\na tree\n")
    (place / "verdicts.csv").write_text("text,verdict\nthe day,good\na tree,bad\n")
    given = dict(changes)
    if "data" in given:
        given["data"] = tuple(place / each for each in given["data"])
    compressed = given.pop("compressed", ("small",))
    with pytest.raises(error, match=message):
        compare_models(request_of(place, *compressed, **given))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["large"], "large alone is nothing to compare"),
        (["large", "small"], "give either --data, for rows of files, or --recipe"),
        (["large", "small", "--data", "data.csv", "--recipe", "r.yaml"], "give either --data"),
        (["large", "small", "--recipe", "r.yaml", "--train", "train.csv"], "go with --data"),
        (["large", "small", "--recipe", "r.yaml", "--label", "x"], "are for --data"),
        (["large", "small", "--data", "data.csv", "--split", "development"], "--split development is of the task"),
        (["large", "small", "--data", "data.csv", "--also", "large=artefact"], "large is given twice"),
        (["large", "small", "--data", "data.csv", "--also", "swapped=small"], "small is given twice"),
        (["large", "small", "artefact", "--data", "data.csv", "--also", "small=large"], "one compressed model"),
        (["large", "small", "--data", "data.csv", "--also", "large"], "--also 'large' is not of the form"),
        (["large", "gone", "--data", "data.csv"], "gone"),
        (["large", "small", "--data", "gone.csv"], r"gone\.csv"),
        (["large", "small", "--data", "data.csv", "--out", "data.csv/x"], "cannot write to"),
    ],
)
def test_the_verb_refuses_in_one_line(
    arguments: list[str],
    message: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    assert tiny.call(monkeypatch, "compare", *arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("plankwise:")]
    assert len(lines) == 1
    assert message.replace(r"\.", ".") in lines[0]


def test_the_verb_says_first_what_makes_a_verdict_worth_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--data", place / "data.csv", "--train", place / "train.csv"]
    out = tmp_path / "found.json"
    assert tiny.call(monkeypatch, "compare", place / "large", place / "small", *files, "--out", out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("the baseline is not shown to beat the ")
    assert any(": cannot tell at a margin of 0.01" in line or "inferior at a margin" in line for line in lines)
    assert any("same answer as the baseline" in line for line in lines)
    document = json.loads(out.read_text())
    assert tiny.call(monkeypatch, "compare", place / "large", place / "small", *files, "--json") == 0
    assert json.loads(capsys.readouterr().out) == document
