"""Artefacts as other tools open them: Transformers' tokenizers, ONNX Runtime by path, and transformers.js."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig, AutoTokenizer

import tiny
from deployables import TEXTS, Artefacts
from plankwise.core.errors import PlankwiseError
from plankwise.data.truncation import Truncation
from plankwise.deploy.export.export import export
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_trained, save
from plankwise.encoder.shapes import prune

ROOT = Path(__file__).parents[3]
MODULES = ROOT / "runs/js/node_modules"  # npm install --prefix runs/js --ignore-scripts @huggingface/transformers
SCRIPT = """
import { pipeline, env } from 'file://MODULES/@huggingface/transformers/dist/transformers.node.mjs';
env.allowRemoteModels = false;
env.localModelPath = 'PARENT/';
const classify = await pipeline('text-classification', 'NAME', { dtype: 'DTYPE' });
const found = [];
for (const text of TEXTS) found.push(await classify(text, { top_k: null }));
console.log(JSON.stringify(found));
"""


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("runtime", "precision", "model"),
    [
        ("onnx", "fp32", "onnx/model.onnx"),
        ("onnx", "int8-dynamic", "onnx/model_quantized.onnx"),
        ("openvino", "fp32", "openvino/openvino_model.xml"),
    ],
)
def test_models_lie_where_other_tools_look_for_them(
    artefacts: Artefacts, runtime: str, precision: str, model: str
) -> None:
    folder = artefacts(runtime, precision)
    assert (folder / model).is_file()
    assert read(folder / "manifest.json")["model"] == model


def test_every_file_states_one_length_and_the_labels(tmp_path: Path) -> None:
    source = tiny.save_source(tmp_path / "m", layers=1)
    export(
        source, tmp_path / "out", to="torch", precision="fp32", truncation=Truncation(max_length=24, truncation="tail")
    )
    settings = read(tmp_path / "out/tokenizer_config.json")
    assert settings["model_max_length"] == 24
    assert (settings["truncation_side"], settings["padding_side"]) == ("left", "right")
    assert read(tmp_path / "out/special_tokens_map.json")["pad_token"] == "[PAD]"
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert config.id2label == dict(enumerate(tiny.LABELS))
    text = "fine " * 30
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    whole = AutoTokenizer.from_pretrained(source)
    assert tokenizer("the fine day")["input_ids"] == whole("the fine day")["input_ids"]
    assert len(tokenizer(text, truncation=True)["input_ids"]) == 24


def test_sizes_that_only_plankwise_reads_are_left_out(tmp_path: Path) -> None:
    """The model's file has them; a guard against loading weights of other sizes would keep other tools from it."""
    save(prune(tiny.model(layers=1), [[0]], [list(range(5))]), tiny.tokenizer(), tmp_path / "m")
    export(tmp_path / "m", tmp_path / "out", to="onnx", precision="fp32", texts=TEXTS)
    assert not [key for key in read(tmp_path / "out/config.json") if key.startswith("plankwise")]
    assert AutoConfig.from_pretrained(tmp_path / "out").model_type == "bert"


def test_an_artefact_is_still_no_model_to_load(artefacts: Artefacts) -> None:
    with pytest.raises(PlankwiseError, match="is an artefact, for prediction; allowed: the model"):
        load_trained(str(artefacts("onnx", "fp32")))


@pytest.mark.skipif(not MODULES.is_dir() or shutil.which("node") is None, reason="needs node and transformers.js")
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "fp32"), ("int8-dynamic", "q8")])
def test_transformers_js_answers_as_the_predictor_does(artefacts: Artefacts, precision: str, dtype: str) -> None:
    folder, texts = artefacts("onnx", precision), TEXTS[:4]
    given = {"MODULES": MODULES, "PARENT": folder.parent, "NAME": folder.name, "DTYPE": dtype}
    script = SCRIPT.replace("TEXTS", json.dumps(texts))
    for name, value in given.items():
        script = script.replace(name, str(value))
    command = ["node", "--input-type=module", "--eval", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = [{each["label"]: each["score"] for each in one} for one in json.loads(done.stdout.splitlines()[-1])]
    predictor = Predictor(folder, mode="latency")  # one text at a time, as there
    expected = [each.probabilities for each in predictor.predict(texts)]
    assert [list(each) for each in (sorted(one) for one in found)] == [sorted(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose([one[name] for name in other], list(other.values()), atol=1e-4)
