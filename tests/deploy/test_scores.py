"""Models of one output: the same score in memory, from a folder, from an artefact and from predict.py."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from deployables import fake_model
from plankwise.core.errors import ModelError
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import FILE_NAME, read_manifest
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import save

TEXTS = [str(row["text"]) for row in tiny.rows(24, 5)]
KINDS: dict[str, Any] = {"regression": "regression", "sigmoid_score": None}


@pytest.fixture(scope="module", params=KINDS)
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A kind of score, a model that answers with it, and its artefact."""
    folder = tmp_path_factory.mktemp(request.param)
    model = tiny.model(layers=1, labels=1)
    model.config.problem_type = KINDS[request.param]
    save(model, tiny.tokenizer(), folder / "model")
    export(folder / "model", folder / "artefact", to="onnx", precision="fp32", texts=TEXTS)
    return request.param, folder / "model", folder / "artefact"


def test_the_score_is_the_same_in_every_runtime(scorer: tuple[str, Path, Path]) -> None:
    kind, model, artefact = scorer
    logits = Predictor(model).logits(TEXTS)
    expected = logits if kind == "regression" else 1 / (1 + np.exp(-logits))
    for source in (model, artefact):
        predictor = Predictor(source)
        assert (predictor.kind, predictor.labels) == (kind, ("score",))
        found = list(predictor.predict(TEXTS))
        assert [each.score for each in found] == pytest.approx(expected[:, 0].tolist(), abs=1e-5)
        assert {each.labels for each in found} == {()}
    done = subprocess.run(
        [sys.executable, artefact / "predict.py"], input="\n".join(TEXTS), capture_output=True, text=True, timeout=120
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["score"] for each in lines] == pytest.approx(expected[:, 0].tolist(), abs=1e-5)


def test_a_table_has_a_column_of_scores(
    scorer: tuple[str, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.csv").write_text("\n".join(["text", *TEXTS]) + "\n")
    assert tiny.call(monkeypatch, "predict", scorer[2], tmp_path / "in.csv", tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["row", "score"]
    expected = Predictor(scorer[2]).probabilities(TEXTS)[:, 0]
    assert [float(row["score"]) for row in rows] == pytest.approx(expected.tolist(), abs=1e-5)


def test_parity_is_measured_in_the_spread_of_the_scores(scorer: tuple[str, Path, Path]) -> None:
    parity = read_manifest(scorer[2]).parity
    assert parity is not None
    assert parity.spread == pytest.approx(4 * np.std(Predictor(scorer[1]).logits(TEXTS)), rel=1e-3)
    assert parity.agreement > 0.99
    assert parity.probability_change < 1e-3


def test_an_artefact_that_answers_otherwise_here_is_refused(scorer: tuple[str, Path, Path], tmp_path: Path) -> None:
    """Its stored rows were proven on a processor with instructions that this one has not."""
    stored = json.loads((scorer[2] / FILE_NAME).read_text())
    stored["check"]["logits"] = [[each[0] + 2 * stored["parity"]["spread"]] for each in stored["check"]["logits"]]
    folder = tmp_path / "artefact"
    folder.mkdir()
    for each in scorer[2].iterdir():
        (folder / each.name).symlink_to(each)
    (folder / FILE_NAME).unlink()
    (folder / FILE_NAME).write_text(json.dumps({**stored, "needs": ["an_instruction_of_no_processor"]}))
    with pytest.raises(ModelError, match=r"differ by 2\.0"):
        Predictor(folder)


def test_a_classifier_has_no_score() -> None:
    [answer] = Predictor(fake_model()).predict(["a day"])
    with pytest.raises(ValueError, match="has labels, and no score"):
        _ = answer.score
