"""Artefacts answer as the torch model does, on every architecture and shape, or are not handed out."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel

import tiny
from plankwise.core.errors import ModelError, OutputError
from plankwise.deploy import deployed
from plankwise.deploy.export import parity
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import FILE_NAME, read_manifest
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_trained, save
from plankwise.encoder.shapes import prune, shapes_of
from plankwise.methods.quantization import Quantization

TEXTS = [row["text"] for row in tiny.rows(24, 5)]
OWN_CODE = ("bert", "distilbert", "mpnet", "deberta-v2", "modernbert", "eurobert")  # others share that of bert


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_source(tmp_path_factory.mktemp("model") / "source", layers=2)


def pruned(kind: str) -> PreTrainedModel:
    """Sizes differ from layer to layer; the first has no heads, the second no neurons."""
    model = tiny.model(kind, layers=3)
    neurons = shapes_of(model.config)[0].neurons
    units = len(shapes_of(model.config)[0].heads)
    heads = [[], [0], list(range(units))]
    return prune(model, heads, [list(range(5)), [], list(range(neurons - 1))])


def quantized(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    return Quantization(examples=32).compress(model, tiny.job(folder, seed=0)).model


def differences(model: Path, artefact: Path, texts: list) -> float:
    """Largest difference of a logit between a model in torch and its artefact, through the whole way of prediction."""
    return float(np.abs(Predictor(model).logits(texts) - Predictor(artefact).logits(texts)).max())


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [(kind, runtime) for runtime in ("openvino", "onnx") for kind in OWN_CODE],
)
def test_layers_of_any_size_export(tmp_path, kind, runtime):
    model = pruned(kind)
    save(model, tiny.tokenizer(), tmp_path / "model")
    export(tmp_path / "model", tmp_path / "artefact", to=runtime, precision="fp32", texts=TEXTS)
    assert differences(tmp_path / "model", tmp_path / "artefact", TEXTS) < 1e-5
    spread = Predictor(tmp_path / "artefact").logits(TEXTS).std(axis=0)
    assert (spread > 1e-4).all()  # the answers depend on the texts, so that agreeing means something


@pytest.mark.parametrize(
    ("runtime", "precision", "error"),
    [
        ("openvino", "bf16", 0.02),
        ("openvino", "fp16", 1e-3),
        ("openvino", "int8", 0.02),
        ("openvino", "int8-weights", 0.02),
        ("openvino", "int4-weights", 0.05),
        ("onnx", "int8", 0.02),
        ("onnx", "int8-dynamic", 0.02),
        ("torch", "fp32", 1e-6),
        ("torch", "bf16", 0.02),
        ("torch", "fp16", 1e-2),
    ],
)
def test_every_precision_comes_near(source, tmp_path, runtime, precision, error):
    manifest = export(source, tmp_path / "a", to=runtime, precision=precision, calibration=TEXTS, texts=TEXTS)
    found = differences(source, tmp_path / "a", TEXTS)
    assert found < error
    assert precision == "fp32" or found > 0  # numbers of fewer bits are not those of fp32
    assert manifest.parity.texts == len(TEXTS)
    assert manifest.parity.logit_error == pytest.approx(found, rel=0.5, abs=1e-6)
    assert manifest.parity.neighbour_change < (1e-5 if precision not in ("bf16", "fp16", "int8-dynamic") else 0.01)


def test_int8_files_hold_int8(tmp_path):
    import onnx
    import openvino

    wide = tiny.model(layers=1, hidden_size=128, intermediate_size=512, num_attention_heads=4)
    save(wide, tiny.tokenizer(), tmp_path / "model")
    weights = sum(each.numel() for name, each in wide.named_parameters() if "layer.0" in name and each.dim() == 2)
    sizes = {}
    for runtime, precision in [("openvino", "fp32"), ("openvino", "int8"), ("onnx", "int8")]:
        out = tmp_path / f"{runtime}-{precision}"
        export(tmp_path / "model", out, to=runtime, precision=precision, calibration=TEXTS)
        sizes[runtime, precision] = sum(each.stat().st_size for each in out.glob("model.*") if each.suffix != ".xml")
    assert sizes["openvino", "int8"] < sizes["openvino", "fp32"] - 2.9 * weights
    nodes = openvino.Core().read_model(tmp_path / "openvino-int8/model.xml").get_ops()
    constants = [node for node in nodes if node.get_type_name() == "Constant"]
    kept = [node for node in constants if node.get_element_type().get_type_name() == "i8"]
    assert sum(int(np.prod(op.get_output_shape(0))) for op in kept) >= weights
    stored = onnx.load(str(tmp_path / "onnx-int8/model.onnx")).graph.initializer
    assert sum(int(np.prod(each.dims)) for each in stored if each.data_type == onnx.TensorProto.INT8) >= weights


@pytest.mark.parametrize(
    ("kind", "runtime"), [("bert", "openvino"), ("bert", "onnx"), ("modernbert", "openvino"), ("deberta-v2", "onnx")]
)
def test_a_quantized_model_keeps_its_own_numbers(tmp_path, kind, runtime):
    model = quantized(pruned(kind), tmp_path / "work")
    save(model, tiny.tokenizer(), tmp_path / "model")
    export(tmp_path / "model", tmp_path / "artefact", to=runtime, precision="int8", texts=TEXTS)
    close = np.abs(Predictor(tmp_path / "model").logits(TEXTS) - Predictor(tmp_path / "artefact").logits(TEXTS))
    assert np.median(close) < 1e-5  # a number on the edge between two steps may fall to either side
    assert close.max() < 5e-3
    with pytest.raises(ModelError, match="quantized already; allowed: int8 for openvino or onnx"):
        export(tmp_path / "model", tmp_path / "other", to=runtime, precision="fp32")


def test_an_artefact_too_far_from_its_model_is_not_handed_out(source, tmp_path, monkeypatch):
    real = parity.reference
    monkeypatch.setattr(parity, "reference", lambda model, batch: real(model, batch) + np.array([0.0, 0.02]))
    with pytest.raises(ModelError, match=r"changes a probability by 0\.00\d\d on 24 texts .*; allowed: 0\.001"):
        export(source, tmp_path / "artefact", to="openvino", precision="fp32", texts=TEXTS)
    assert not list(tmp_path.iterdir())
    export(source, tmp_path / "artefact", to="openvino", precision="fp32", texts=TEXTS, tolerance=0.1)


def test_a_quantized_model_may_change_some_answers_and_not_all(tmp_path, monkeypatch):
    save(quantized(tiny.model(layers=2), tmp_path / "work"), tiny.tokenizer(), tmp_path / "model")
    real, given = parity.reference, {"to": "onnx", "precision": "int8", "texts": TEXTS}

    def one_is_far(model, batch):
        logits = real(model, batch)
        logits[0, 1] += 0.5  # as where a number on an edge fell to the other side
        return logits

    monkeypatch.setattr(parity, "reference", one_is_far)
    found = export(tmp_path / "model", tmp_path / "one", **given).parity
    assert 0.1 < found.probability_change < 0.25
    assert found.mean_change < 0.02
    monkeypatch.setattr(parity, "reference", lambda model, batch: real(model, batch) + np.array([0.0, 0.2]))
    with pytest.raises(
        ModelError, match=r"changes probabilities on average by 0\.0\d\d\d on 24 texts .*; allowed: 0\.02"
    ):
        export(tmp_path / "model", tmp_path / "all", **given)
    assert not (tmp_path / "all").exists()
    export(tmp_path / "model", tmp_path / "all", **given, tolerance=0.25)


def test_answers_that_are_no_numbers_are_not_handed_out(source, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "reference", lambda model, batch: np.full((len(batch["input_ids"]), 2), np.nan))
    with pytest.raises(ModelError, match="changes a probability by nan"):
        export(source, tmp_path / "artefact", to="openvino", precision="fp32", tolerance=1.0)


def test_a_changed_file_is_refused(source, tmp_path):
    export(source, tmp_path / "artefact", to="onnx", precision="fp32")
    manifest = read_manifest(tmp_path / "artefact")
    assert set(manifest.hashes) == {"model.onnx", "tokenizer.json", "predict.py"}
    stored = json.loads((tmp_path / "artefact" / FILE_NAME).read_text())
    (tmp_path / "artefact" / FILE_NAME).write_text(json.dumps({**stored, "format": 99}))
    with pytest.raises(ModelError, match="format 99; allowed: 1"):
        Predictor(tmp_path / "artefact")
    (tmp_path / "artefact" / FILE_NAME).write_text(json.dumps(stored))
    with (tmp_path / "artefact" / "model.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match=r"model\.onnx is not the file that was exported"):
        Predictor(tmp_path / "artefact")


def test_a_machine_without_the_instructions_is_warned_about_and_checked(source, tmp_path, monkeypatch, caplog):
    export(source, tmp_path / "artefact", to="openvino", precision="int8", calibration=TEXTS)
    path = tmp_path / "artefact" / FILE_NAME
    stored = {**json.loads(path.read_text()), "needs": ["avx512_vnni"]}
    path.write_text(json.dumps(stored))
    monkeypatch.setattr(deployed, "cpu_flags", lambda: ["avx512_vnni"])
    with caplog.at_level(logging.WARNING):
        Predictor(tmp_path / "artefact")
        assert not caplog.records
        monkeypatch.setattr(deployed, "cpu_flags", lambda: ["avx2"])
        Predictor(tmp_path / "artefact")
    assert "none of avx512_vnni" in caplog.text
    stored["check"]["logits"][0][0] += 3.0  # what another machine once answered
    path.write_text(json.dumps(stored))
    with pytest.raises(ModelError, match=r"differ by 0\.\d+ from those it was exported with"):
        Predictor(tmp_path / "artefact")


def test_a_runtime_that_is_not_there_is_named(source, tmp_path, monkeypatch):
    export(source, tmp_path / "artefact", to="onnx", precision="fp32")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else real(name))
    with pytest.raises(ModelError, match=r"artefact needs onnxruntime: pip install 'plankwise\[onnx\]'"):
        Predictor(tmp_path / "artefact")
    with pytest.raises(ModelError, match=r"onnx and onnxruntime and onnxscript: pip install 'plankwise\[onnx\]'"):
        export(source, tmp_path / "other", to="onnx", precision="fp32")
    assert not (tmp_path / "other").exists()


def test_a_place_that_is_taken_stays_as_it_is(source, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        export(source, tmp_path, to="openvino", precision="fp32")
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]


def test_the_model_that_is_exported_stays_as_it_is(source, tmp_path):
    before = {each.name: each.read_bytes() for each in source.iterdir()}
    export(source, tmp_path / "artefact", to="openvino", precision="int8", calibration=TEXTS)
    assert before == {each.name: each.read_bytes() for each in source.iterdir()}
    assert load_trained(str(source)).config.num_hidden_layers == 2
