"""An export takes the texts of a run that it may, and refuses wrong input in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import plankwise
import tiny
from fake_runtime import MANIFEST
from plankwise.core.errors import DataError, ModelError
from plankwise.core.recipe import read_recipe
from plankwise.data.truncation import Truncation
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import Manifest, read_manifest
from plankwise.encoder.checkpoint import load_classifier, load_trained, save
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.benchmark.artefact_timing import MOST_TEXTS
from plankwise.run.artefacts import ExportRequest, export_model
from plankwise.run.recipe import Recipe
from plankwise.training.prediction import predict


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of a run, with a model that was not trained, which does not matter to an export."""
    folder = tmp_path_factory.mktemp("run")
    source = tiny.save_source(folder / "source", layers=2)
    save(load_classifier(str(source), ("bad", "good")), tiny.tokenizer(), folder / "model")
    recipe = {
        "name": "run",
        "task": {"name": "table", "train": str(tiny.write_table(folder, 200))},
        "model": {"source": str(source), "max_length": 12, "truncation": "tail"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_texts_come_from_train_and_development_only(run: Path, tmp_path: Path) -> None:
    taken: dict[str, Any] = {}

    def note(model: str, out: Path, **how: Any) -> Manifest:
        taken.update(how)
        return MANIFEST

    request = ExportRequest(model=str(run / "model"), out=tmp_path / "out", to="openvino", precision="int8")
    export_model(request, exporter=note)
    task = read_recipe(run / "recipe.yaml", Recipe).task.load()
    assert set(taken["calibration"]) <= set(task.splits["train"]["text"])
    assert set(taken["texts"]) <= set(task.splits["development"]["text"])
    only_test = set(task.splits["test"]["text"]) - set(task.splits["train"]["text"])
    assert only_test
    assert not only_test & {*taken["calibration"], *taken["texts"]} - set(task.splits["development"]["text"])
    assert taken["truncation"] == Truncation(max_length=12, truncation="tail")
    export_model(dataclasses.replace(request, max_length=8), exporter=note)
    assert taken["truncation"] == Truncation(max_length=8, truncation="tail")


@pytest.mark.parametrize(
    ("access", "wanted", "kept"),
    [
        ("open", None, True),
        ("open", False, False),
        ("credentialed", None, False),
        (None, None, False),
        (None, True, True),
    ],
)
def test_texts_go_into_an_artefact_where_their_owner_lets_them(
    run: Path, tmp_path: Path, access: str | None, wanted: bool | None, kept: bool
) -> None:
    taken: dict[str, Any] = {}

    def note(model: str, out: Path, **how: Any) -> Manifest:
        taken.update(how)
        return MANIFEST

    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "task": {**recipe["task"], "access": access}}))
    (tmp_path / "texts.txt").write_text("a fine day\n")
    texts: dict[str, Any] = {"recipe": tmp_path / "recipe.yaml"} if access else {"texts": tmp_path / "texts.txt"}
    request = ExportRequest(model=str(run / "model"), out=tmp_path / "out", to="openvino", precision="int8", **texts)
    export_model(dataclasses.replace(request, keep_rows=wanted), exporter=note)
    assert taken["keep_rows"] is kept
    if access == "credentialed":
        with pytest.raises(DataError, match="--keep-rows puts texts into the artefact, and the task's access is cred"):
            export_model(dataclasses.replace(request, keep_rows=True), exporter=note)


@pytest.mark.filterwarnings("ignore")  # tracers warn of themselves
def test_an_artefact_scores_as_evaluate_does_and_is_timed(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")

    def only_openvino(model: str, out: Path, *, to: str, **options: Any) -> Manifest:
        if to != "openvino":
            raise ModelError("this test has no time for it")
        return export(model, out, to=to, **options)

    request = ExportRequest(model=str(run / "model"), out=tmp_path / "out", to="openvino", precision="fp32", timed=True)
    written = export_model(request, exporter=only_openvino)
    recipe = read_recipe(run / "recipe.yaml", Recipe)
    task = recipe.task.load()
    model, tokenizer = load_trained(str(run / "model")), load_tokenizer(str(run / "model"))
    expected = predict(model, tokenizer, task, "test", recipe.model.plain_truncation).logits
    found = plankwise.Predictor(tmp_path / "out").logits(list(task.splits["test"]["text"]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert read_manifest(tmp_path / "out") == written  # hashes included
    assert written.timing is not None
    texts = min(MOST_TEXTS, len(task.splits["development"]))
    assert (written.timing.texts, written.timing.rounds, written.timing.others) == (texts, 5, {})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--to", "tensorrt"), "no runtime 'tensorrt'; Allowed: openvino, onnx, torch"),
        (("--to", "onnx", "--precision", "bf16"), "no precision 'bf16' for onnx"),
        (("--texts", "nowhere.txt"), "cannot read nowhere.txt: No such file or directory"),
        (("--recipe", "nowhere.yaml"), "cannot read the recipe nowhere.yaml"),
        (("--recipe", "{run}/recipe.yaml", "--texts", "nowhere.txt"), "give either a recipe or a file of texts"),
        (("--precision", "fp32", "--max-length", "600"), "max_length 600 is more than the model's 72 positions"),
        (("--recipe", "{run}/other.yaml"), "knows the labels ('bad', 'good'), the recipe's task has ('a', 'b')"),
    ],
)
def test_wrong_input_ends_in_one_line(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    table = "".join(f"word {number},{'ab'[number % 2]}\n" for number in range(60))
    (run / "other.csv").write_text("text,label\n" + table)
    other = yaml.safe_load((run / "recipe.yaml").read_text())
    other["task"]["train"] = str(run / "other.csv")
    (run / "other.yaml").write_text(yaml.safe_dump(other))
    monkeypatch.chdir(tmp_path)
    given = [each.format(run=run) for each in options]
    assert tiny.call(monkeypatch, "export", run / "model", "--out", tmp_path / "out", *given) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("plankwise: ")
    assert said in last
    assert not list(tmp_path.iterdir())
