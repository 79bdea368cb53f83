"""Artefacts answer as the torch model does, in every runtime, precision and architecture, or are not written."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel

import tiny
from deployables import TEXTS, Artefacts
from plankwise.core.errors import ModelError, OutputError
from plankwise.deploy import standalone
from plankwise.deploy.deployed import open_model
from plankwise.deploy.export.export import DYNAMIC_CAVEAT, export
from plankwise.deploy.manifest import FILE_NAME, Parity, read_manifest
from plankwise.deploy.predictor import Predictor
from plankwise.deploy.runtimes import ONNX_BF16, OnnxRuntime, OpenVino
from plankwise.encoder.checkpoint import save
from plankwise.encoder.shapes import prune, shapes_of
from plankwise.methods.quantization import Quantization

TOKENIZER_FILES = {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}


def pruned(kind: str) -> PreTrainedModel:
    """Sizes differ from layer to layer; the first has no heads, the second no neurons."""
    model = tiny.model(kind, layers=3)
    neurons = shapes_of(model.config)[0].neurons
    units = len(shapes_of(model.config)[0].heads)
    heads = [[], [0], list(range(units))]
    return prune(model, heads, [list(range(5)), [], list(range(neurons - 1))])


def quantized(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    return Quantization(examples=32).compress(model, tiny.job(folder, seed=0)).model


def differences(model: Path, artefact: Path) -> float:
    """Largest difference of a logit between a model in torch and its artefact, through the whole way of prediction."""
    return float(np.abs(Predictor(model).logits(TEXTS) - Predictor(artefact).logits(TEXTS)).max())


def parity_of(folder: Path) -> Parity:
    parity = read_manifest(folder).parity
    assert parity is not None
    return parity


@pytest.mark.parametrize(
    ("kind", "runtime"),  # each architecture with a graph of its own, in one runtime
    [
        ("bert", "openvino"),
        ("distilbert", "openvino"),
        ("mpnet", "onnx"),
        ("deberta-v2", "onnx"),
        ("modernbert", "openvino"),
        ("eurobert", "openvino"),
    ],
)
def test_layers_of_any_size_export(tmp_path: Path, kind: str, runtime: str) -> None:
    save(pruned(kind), tiny.tokenizer(), tmp_path / "model")
    export(tmp_path / "model", tmp_path / "artefact", to=runtime, precision="fp32", texts=TEXTS)
    assert differences(tmp_path / "model", tmp_path / "artefact") < 1e-5
    spread = Predictor(tmp_path / "artefact").logits(TEXTS).std(axis=0)
    assert (spread > 1e-4).all()  # the answers depend on the texts, so that agreeing means something


@pytest.mark.parametrize(
    ("runtime", "precision", "error"),
    [
        ("openvino", "fp32", 1e-5),
        ("openvino", "bf16", 0.02),
        ("openvino", "fp16", 1e-3),
        ("openvino", "int8", 0.02),
        ("openvino", "int8-weights", 0.02),
        ("openvino", "int4-weights", 0.05),
        ("onnx", "fp32", 1e-5),
        ("onnx", "int8", 0.02),
        ("onnx", "int8-dynamic", 0.02),
        ("torch", "fp32", 1e-6),
        ("torch", "bf16", 0.02),
        ("torch", "fp16", 1e-2),
    ],
)
def test_every_precision_is_close(
    source: Path, artefacts: Artefacts, runtime: str, precision: str, error: float
) -> None:
    folder = artefacts(runtime, precision)
    parity, found = parity_of(folder), differences(source, folder)
    assert found < error
    assert precision == "fp32" or found > 1e-6  # numbers of fewer bits are not those of fp32
    assert parity.texts == len(TEXTS)
    assert parity.logit_error == pytest.approx(found, rel=0.5, abs=1e-6)
    assert parity.neighbour_change is not None
    assert parity.neighbour_change < (1e-5 if precision not in ("bf16", "fp16", "int8-dynamic") else 0.01)


@pytest.mark.parametrize(("kind", "runtime"), [("bert", "openvino"), ("deberta-v2", "onnx")])
def test_a_quantized_model_keeps_its_own_numbers(tmp_path: Path, kind: str, runtime: str) -> None:
    save(quantized(pruned(kind), tmp_path / "work"), tiny.tokenizer(), tmp_path / "model")
    export(tmp_path / "model", tmp_path / "artefact", to=runtime, precision="int8", texts=TEXTS)
    close = np.abs(Predictor(tmp_path / "model").logits(TEXTS) - Predictor(tmp_path / "artefact").logits(TEXTS))
    assert np.median(close) < 1e-5  # a number on the edge between two steps may be rounded to either
    assert close.max() < 5e-3
    with pytest.raises(ModelError, match="quantized already; allowed: int8 for openvino or onnx"):
        export(tmp_path / "model", tmp_path / "other", to=runtime, precision="fp32")


def test_an_artefact_too_far_from_its_model_is_not_written(source: Path, tmp_path: Path) -> None:
    message = r"changes a probability by 0\.0\d\d\d on 24 texts \(the given texts\); allowed: 1e-08"
    with pytest.raises(ModelError, match=message):
        export(source, tmp_path / "artefact", to="openvino", precision="fp16", texts=TEXTS, tolerance=1e-8)
    assert not list(tmp_path.iterdir())


def test_a_changed_file_is_refused(artefacts: Artefacts, tmp_path: Path) -> None:
    folder = shutil.copytree(artefacts("onnx", "fp32"), tmp_path / "artefact")
    assert set(read_manifest(folder).hashes) == {"onnx/model.onnx", "predict.py", *TOKENIZER_FILES}
    stored = json.loads((folder / FILE_NAME).read_text())
    for change, message in (
        ({"format": 99}, "format 99; allowed: 1"),
        ({"kind": "spans"}, r"manifest.json: kind: no kind 'spans'; allowed: single_label, multi_label, regression"),
        ({"labels": ["one"]}, "answers with one number, not with labels; allowed: classifiers of two labels or more"),
    ):
        (folder / FILE_NAME).write_text(json.dumps({**stored, **change}))
        with pytest.raises(ModelError, match=message):
            Predictor(folder)
    (folder / FILE_NAME).write_text(json.dumps(stored))
    with (folder / "onnx/model.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match=r"model\.onnx is not the file that was exported"):
        Predictor(folder)


def test_texts_are_stored_for_other_machines_only_where_that_is_asked_for(
    source: Path, artefacts: Artefacts, tmp_path: Path
) -> None:
    assert read_manifest(artefacts("onnx", "fp32")).rows is None
    export(source, tmp_path / "kept", to="onnx", precision="fp32", texts=TEXTS, keep_rows=True)
    rows = read_manifest(tmp_path / "kept").rows
    assert rows is not None
    encode = tiny.tokenizer().encode
    texts = {tuple(encode(text)) for text in TEXTS}
    stored = [
        tuple(np.array(ids)[np.array(mask) == 1])
        for ids, mask in zip(rows.inputs["input_ids"], rows.inputs["attention_mask"], strict=True)
    ]
    assert set(stored) < texts
    assert len(stored) == 4
    assert len({len(each) for each in stored}) > 1  # some are padded
    found = open_model(tmp_path / "kept").runtime({name: np.array(each) for name, each in rows.inputs.items()})
    np.testing.assert_allclose(found, rows.logits, atol=1e-6)
    export(source, tmp_path / "random", to="onnx", precision="fp32", keep_rows=True)
    assert read_manifest(tmp_path / "random").rows is None  # there are no texts


def test_fp32_stays_fp32_in_every_runtime_and_in_predict_py(artefacts: Artefacts) -> None:
    """The properties of the loaded models are read: OpenVINO takes bf16 by itself where the processor has it."""
    for precision in ("fp32", "int8", "fp16"):
        opened = open_model(artefacts("openvino", precision)).runtime
        assert isinstance(opened, OpenVino)
        assert opened._compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    run = standalone.runtime("openvino", str(artefacts("openvino", "fp32") / "openvino/openvino_model.xml"), "fp32")
    request = inspect.getclosurevars(run).nonlocals["request"]
    assert request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    onnx = open_model(artefacts("onnx", "fp32")).runtime
    assert isinstance(onnx, OnnxRuntime)
    alone = standalone.runtime("onnx", str(artefacts("onnx", "fp32") / "onnx/model.onnx"), "fp32")
    for session in (onnx._session, inspect.getclosurevars(alone).nonlocals["session"]):
        assert session.get_session_options().get_session_config_entry(ONNX_BF16) == "0"


def test_dynamic_int8_says_that_it_vouches_for_nothing(artefacts: Artefacts) -> None:
    manifest = read_manifest(artefacts("onnx", "int8-dynamic"))
    assert manifest.caveats == (DYNAMIC_CAVEAT,)
    assert not manifest.independent
    assert all(read_manifest(artefacts(runtime, "int8")).independent for runtime in ("openvino", "onnx"))


def test_a_runtime_that_is_not_installed_is_named(
    source: Path, artefacts: Artefacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = artefacts("onnx", "fp32")
    for name in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)  # Python's own way to say that there is none
    with pytest.raises(ModelError, match=r"fp32-None needs onnxruntime: pip install 'plankwise\[onnx\]'"):
        Predictor(folder)
    with pytest.raises(ModelError, match=r"onnx and onnxruntime and onnxscript: pip install 'plankwise\[onnx\]'"):
        export(source, tmp_path / "other", to="onnx", precision="fp32")
    assert not (tmp_path / "other").exists()


def test_a_folder_that_exists_stays_as_it_is(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export(source, tmp_path, to="openvino", precision="fp32")
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]


def test_the_exported_model_stays_as_it_is(tmp_path: Path) -> None:
    source = tiny.save_source(tmp_path / "model", layers=1)
    before = {each.name: each.read_bytes() for each in source.iterdir()}
    export(source, tmp_path / "artefact", to="openvino", precision="int8", calibration=TEXTS)
    assert before == {each.name: each.read_bytes() for each in source.iterdir()}
