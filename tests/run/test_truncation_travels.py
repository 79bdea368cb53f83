"""How texts are read goes from a recipe into every folder of its run, and from there to wherever the model is used."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plankwise
import tiny
from fake_runtime import MANIFEST
from plankwise.core.errors import RecipeError
from plankwise.core.recipe import read_recipe
from plankwise.core.records import read_record
from plankwise.data.truncation import Truncation, Windows
from plankwise.deploy.manifest import Manifest
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.stored_truncation import TRUNCATION_KEY, stored_truncation
from plankwise.evaluation.benchmark.benchmark import BenchmarkConfig
from plankwise.run import artefacts
from plankwise.run import evaluate as inspect
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe

TAIL, WINDOWS = (
    Truncation(max_length=6, truncation="tail"),
    Truncation(max_length=6, windows=Windows(stride=1, max_windows=2)),
)
TRAINING = {"epochs": 1, "batch_size": 32}
READ: dict[str, dict[str, object]] = {
    "tail": {"max_length": 6, "truncation": "tail"},
    "windows": {"max_length": 6, "windows": {"stride": 1, "max_windows": 2}},
}


def write_recipe(folder: Path, name: str, **model: object) -> Path:
    pruning = {"method": "pruning", "target": 1.5, "examples": 16, "importance": "magnitude"}
    document = {
        "name": name,
        "task": {"name": "table", "train": str(folder / "data.csv"), "id": "id"},
        "model": model,
        "baseline": TRAINING,
        "steps": [pruning],
        "evaluation": {"bootstrap": 100, "rounds": 3, "threads": 1, "onnx_baseline": False},
    }
    (folder / f"{name}.yaml").write_text(json.dumps(document))
    return folder / f"{name}.yaml"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, a source, and two finished runs, `tail` and `windows`."""
    folder = tmp_path_factory.mktemp("place")
    with (folder / "data.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["id", "text", "label"])
        table.writeheader()
        table.writerows(tiny.rows(120))
    source = tiny.save_source(folder / "source", layers=2)
    for name, read in READ.items():
        path = write_recipe(folder, name, source=str(source), **read)
        run(check(read_recipe(path, Recipe)), folder / "runs" / name)
    return folder


def lengths(place: Path, split: str) -> list[int]:
    texts = read_recipe(place / "tail.yaml", Recipe).task.load().splits[split]["text"]
    return [len(text.split()) + 2 for text in texts]


@pytest.mark.parametrize(("name", "truncation"), [("tail", TAIL), ("windows", WINDOWS)])
def test_every_model_of_a_run_knows_it(place: Path, name: str, truncation: Truncation) -> None:
    for folder in ("baseline", "steps/01-pruning", "model"):
        assert stored_truncation(load_config(str(place / "runs" / name / folder))) == truncation


def test_the_record_counts_what_is_cut_or_thinned(place: Path) -> None:
    record = read_record(place / "runs" / "tail")
    assert record.baseline is not None
    assert record.final is not None
    assert record.baseline.texts_read.keys() == {"train", "development", "test"}
    for split, read in record.baseline.texts_read.items():
        counted = lengths(place, split)
        assert (read.texts, read.tokens) == (len(counted), sum(counted))
        assert read.truncated == sum(length > 6 for length in counted) > 0
        assert read.unread_tokens == sum(max(0, length - 6) for length in counted)
    assert record.steps[0].texts_read == {"development": record.baseline.texts_read["development"]}
    assert record.final.texts_read == record.baseline.texts_read["test"]
    read = read_record(place / "runs" / "windows").baseline.texts_read["train"]  # type: ignore[union-attr]
    assert read.truncated == 0
    # Windows hold 4 words and share 1: the third begins where the first two hold 7 words and more are left.
    assert read.thinned == sum(length - 2 > 7 for length in lengths(place, "train")) > 0


@pytest.mark.parametrize("name", ["tail", "windows"])
def test_it_is_how_prediction_reads(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    saved = np.load(place / "runs" / name / "predictions.npz")
    options = ["--truncate", "--id", "id", "--threads", 1, "--json"]
    model = place / "runs" / name / "model"
    assert tiny.call(monkeypatch, "predict", model, place / "data.csv", tmp_path / "out.csv", *options) == 0
    document = json.loads(capsys.readouterr().out)
    everything = [length for split in ("train", "development", "test") for length in lengths(place, split)]
    assert document["truncated"] == (sum(each > 6 for each in everything) if name == "tail" else 0)
    assert document["thinned"] == (sum(each > 9 for each in everything) if name == "windows" else 0)
    assert document["tokens"] == sum(everything)
    with (tmp_path / "out.csv").open() as file:
        found = {row["id"]: float(row["probability_good"]) for row in csv.DictReader(file)}
    logits = saved["compressed"]
    expected = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose([found[key] for key in saved["ids"].tolist()], expected, atol=2e-6)


def test_evaluation_reads_as_the_model_where_the_recipe_is_silent(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model = place / "runs" / "tail" / "baseline"
    silent = write_recipe(place, "silent", source="unused")
    document = inspect.evaluate(model, read_recipe(silent, Recipe), "test")
    assert document["reading"] == dataclasses.asdict(TAIL)
    record = read_record(place / "runs" / "tail")
    assert record.baseline is not None
    assert document["texts_read"] == record.baseline.texts_read["test"].model_dump()
    assert document["scores"]["macro_f1"]["value"] == record.baseline.scores["macro_f1"]
    assert [each.getMessage()[:20] for each in caplog.records if "cuts" in each.getMessage()] == [
        "test: truncation cut"
    ]
    assert "made for" not in caplog.text
    caplog.clear()
    document = inspect.evaluate(model, read_recipe(silent, Recipe, ["model.truncation=head"]), "test")
    assert document["reading"] == dataclasses.asdict(Truncation(max_length=6))
    said = [each.getMessage() for each in caplog.records if "made for" in each.getMessage()]
    assert said == [f"{model} reads texts with truncation head here, where it was made for truncation tail"]


def test_more_than_the_model_can_read_is_refused(place: Path) -> None:
    silent = read_recipe(write_recipe(place, "silent", source="unused"), Recipe, ["model.max_length=100"])
    verbs: list[Callable[[], object]] = [
        lambda: inspect.evaluate(place / "runs" / "tail" / "model", silent, "test"),
        lambda: inspect.bench([str(place / "source")], silent, None, "text", 1, baselines=False, memory=False),
    ]
    for verb in verbs:
        with pytest.raises(RecipeError, match="max_length is 100; allowed: at most the model's 72 positions"):
            verb()


def test_exports_and_benchmarks_take_it(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    taken: dict[str, Any] = {}

    def export(model: str, out: Path, **how: Any) -> Manifest:
        taken.update(how)
        return MANIFEST

    def timer(models: Sequence[str], config: BenchmarkConfig) -> dict[str, Any]:
        taken["config"] = config
        return {}

    (tmp_path / "texts.txt").write_text("the day\n")
    step = str(place / "runs" / "tail" / "steps" / "01-pruning")  # no recipe lies beside it
    request = artefacts.ExportRequest(
        model=step, out=tmp_path / "out", to="onnx", precision="fp32", texts=tmp_path / "texts.txt"
    )
    for max_length, expected in ((None, TAIL), (5, Truncation(max_length=5, truncation="tail"))):
        artefacts.export_model(dataclasses.replace(request, max_length=max_length), exporter=export)
        assert taken["truncation"] == expected
    assert "reads texts with max_length 5 here, where it was made for max_length 6" in caplog.text
    silent = read_recipe(write_recipe(place, "silent", source="unused"), Recipe)
    inspect.bench([step], silent, None, "text", 1, timer=timer)
    assert taken["config"].truncation == TAIL


def test_compressing_further_keeps_it_unless_the_recipe_says_otherwise(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = str(place / "runs" / "windows" / "baseline")
    kept = check(read_recipe(write_recipe(place, "further", source=source), Recipe))
    assert kept.recipe.model.plain_truncation == WINDOWS
    assert "made for" not in caplog.text
    other = check(read_recipe(write_recipe(place, "further", source=source, truncation="tail"), Recipe))
    assert other.recipe.model.plain_truncation == TAIL
    line = f"{source} reads texts with truncation tail, no windows here, where it was made for truncation head, windows"
    assert f"{line} (stride 1, pooling mean, max_windows 2)" in caplog.text


def test_predictors_say_where_they_are_told_otherwise(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = place / "runs" / "tail" / "baseline"
    texts = [row["text"] for row in tiny.rows(30, 9)]
    plankwise.Predictor(model, threads=1).probabilities(texts)
    cut = sum(len(text.split()) + 2 > 6 for text in texts)
    assert f"{model}: truncation cuts {cut} of 30 texts" in caplog.text
    assert "made for" not in caplog.text
    predictor = plankwise.Predictor(model, threads=1, max_length=64)
    assert predictor.truncation == Truncation(max_length=64, truncation="tail")
    assert "reads texts with max_length 64 here, where it was made for max_length 6" in caplog.text


def test_a_malformed_reading_ends_in_one_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = place / "runs" / "tail" / "baseline"
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config[TRUNCATION_KEY]["truncation"] = "middle"
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    recipe = write_recipe(place, "silent", source=str(tmp_path / "model"))
    verbs: dict[str, list[object]] = {
        "predict": [tmp_path / "model", place / "data.csv", tmp_path / "out.csv"],
        "evaluate": [tmp_path / "model", "--recipe", recipe],
        "export": [tmp_path / "model", "--out", tmp_path / "artefact", "--to", "torch", "--precision", "fp32"],
        "bench": [tmp_path / "model", "--recipe", recipe],
        "run": [recipe, "--out", tmp_path / "run"],
    }
    for verb, arguments in verbs.items():
        assert tiny.call(monkeypatch, verb, *arguments) == 2
        (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("plankwise:")]
        assert f"'{TRUNCATION_KEY}' in the configuration of {tmp_path / 'model'}: truncation: " in line
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
