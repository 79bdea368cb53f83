"""Int8 artefacts compute exact integers on every processor, give a text the same answer in any batch, or say so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from plankwise.core.errors import ModelError
from plankwise.core.hardware import INT8_FLAGS
from plankwise.core.progress import muted
from plankwise.deploy.export import export as exporting
from plankwise.deploy.export.calibrated import calibrated
from plankwise.deploy.export.export import export
from plankwise.deploy.export.onnx import Int8Linear
from plankwise.deploy.manifest import read_manifest
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import save
from plankwise.encoder.quantized import QuantizedLinear

TEXTS = [row["text"] for row in tiny.rows(24, 5)]
BATCH = {name: value.numpy() for name, value in tiny.batch().items() if name in ("input_ids", "attention_mask")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_source(tmp_path_factory.mktemp("model") / "source", layers=1)


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Give the artefact of a runtime, precision and range; each is made once."""
    folder = tmp_path_factory.mktemp("artefacts")

    def make(runtime: str, precision: str, portable: bool | None = None) -> Path:
        out = folder / f"{runtime}-{precision}-{portable}"
        if not out.exists():
            export(source, out, to=runtime, precision=precision, calibration=TEXTS, texts=TEXTS, portable=portable)
        return out

    return make


def int8_of(model: Path) -> list[np.ndarray]:
    """Collect the int8 matrices of a model's products, which the table of word embeddings is not."""
    if model.suffix == ".onnx":
        import onnx
        from onnx import numpy_helper

        stored = [each for each in onnx.load(str(model)).graph.initializer if each.data_type == onnx.TensorProto.INT8]
        found = [numpy_helper.to_array(each) for each in stored]
    else:
        import openvino

        ops = openvino.Core().read_model(model).get_ops()
        origins = [origin(op.input_value(1).get_node()) for op in ops if op.get_type_name() == "MatMul"]
        found = [each.get_data() for each in origins if each.get_type_name() == "Constant"]
        found = [each for each in found if each.dtype == np.int8]
    return [
        each.astype(int) for each in found if each.ndim == 2 and len(each) != tiny.model(layers=1).config.vocab_size
    ]


@pytest.mark.parametrize(("runtime", "precision"), [("openvino", "int8"), ("onnx", "int8"), ("onnx", "int8-dynamic")])
def test_weights_have_7_bits_unless_full_range_is_asked_for(exported, runtime, precision):
    largest = {}
    for portable in (None, False):
        out = exported(runtime, precision, portable)
        manifest = read_manifest(out)
        assert manifest.needs == (INT8_FLAGS if portable is False else ())
        largest[portable] = max(int(np.abs(each).max()) for each in int8_of(out / manifest.model))
    assert largest[False] in (127, 128)
    assert largest[None] in (63, 64)
    assert 2 * 255 * largest[None] < 2**15


@pytest.mark.parametrize("kind", ["bert", "mpnet"])  # attention as one operation, and written out
def test_no_product_of_activations_is_of_integers(tmp_path, kind):
    import openvino

    save(tiny.model(kind, layers=1), tiny.tokenizer(), tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", to="openvino", precision="int8", calibration=TEXTS)
    products = 0
    for op in openvino.Core().read_model(tmp_path / "out" / "model.xml").get_ops():
        if op.get_type_name() in ("MatMul", "ScaledDotProductAttention"):
            sides = [origin(side.get_node()).get_type_name() for side in op.input_values()[:2]]
            products += sides == ["FakeQuantize", "Constant"]
            assert sides.count("FakeQuantize") < 2
    assert products >= 6


def origin(node: Any) -> Any:
    """Find the operation that a value comes from, beyond changes of shape and type."""
    while node.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape", "Transpose"):
        node = node.input_value(0).get_node()
    return node


def by_hand(linear: QuantizedLinear, values: np.ndarray) -> np.ndarray:
    """Compute a projection in whole numbers of 64 bits."""
    zero, step = int(linear.input_zero), float(linear.input_scale)
    seen = (np.rint(values / np.float32(step)).astype(np.int64) + zero).clip(0, 255) - zero
    return (
        seen @ linear.weight.numpy().astype(np.int64).T * (step * linear.scale.double().numpy()) + linear.bias.numpy()
    )


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_kernels_compute_integers_by_hand_at_the_worst(tmp_path, runtime):
    """All weights and inputs as large as they get, with one sign and with both: where sums would saturate first."""
    draw = np.random.default_rng(0)
    weights = draw.integers(-63, 64, (8, 64))
    weights[0], weights[1], weights[2] = 63, -63, 63 * (-1) ** np.arange(64)
    values = np.concatenate([np.full((1, 64), 99.0), np.full((1, 64), -99.0), 3 * draw.normal(size=(6, 64))])
    values = values.astype(np.float32).reshape(2, 4, 64)
    for zero in (0, 7, 128, 255):
        linear = QuantizedLinear(64, 8)
        linear.weight.copy_(torch.from_numpy(weights))
        linear.scale.copy_(torch.linspace(0.001, 0.01, 8))
        linear.input_scale.fill_(2**-5)
        linear.input_zero.fill_(zero)
        expected = by_hand(linear, values)
        assert np.abs(expected).max() > 5
        np.testing.assert_allclose(compiled(linear, runtime, tmp_path)(values), expected, rtol=1e-5, atol=1e-5)


def compiled(linear: QuantizedLinear, runtime: str, folder: Path) -> Any:
    """Run one projection, [texts, tokens, 64] to [texts, tokens, 8], as the exporters of models write it."""
    if runtime == "openvino":
        import openvino

        shape = openvino.PartialShape([-1, -1, 64])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # OpenVINO traces by what torch calls deprecated
            made = openvino.convert_model(
                linear, example_input=torch.ones(2, 3, 64), input=[(shape, openvino.Type.f32)]
            )
        run = openvino.Core().compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda values: run(values)[0]
    import onnxruntime

    with muted("onnxscript", "onnx_ir", "torch.onnx"):
        program = torch.onnx.export(Int8Linear(linear), (torch.ones(2, 4, 64),), dynamo=True, verbose=False)
        assert program is not None
        program.save(str(folder / "linear.onnx"))
    session = onnxruntime.InferenceSession(str(folder / "linear.onnx"), providers=["CPUExecutionProvider"])
    return lambda values: session.run(None, {session.get_inputs()[0].name: values})[0]


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_int8_answers_do_not_depend_on_neighbours(exported, runtime):
    manifest, predictor = read_manifest(exported(runtime, "int8")), Predictor(exported(runtime, "int8"))
    alone = np.concatenate([predictor.probabilities([text]) for text in TEXTS])
    assert np.abs(alone - predictor.probabilities(TEXTS)).max() < 1e-5
    assert manifest.parity.neighbour_change < 1e-5
    assert not manifest.caveats


def test_dynamic_int8_says_that_answers_depend_on_neighbours(exported):
    manifest = read_manifest(exported("onnx", "int8-dynamic"))
    assert manifest.caveats == (exporting.DYNAMIC,)
    assert manifest.parity.neighbour_change > 1e-5


@pytest.mark.parametrize("without", [True, False])
def test_what_an_artefact_cannot_promise_is_logged(without, monkeypatch, caplog):
    monkeypatch.setattr(exporting, "saturates", lambda: without)
    limits = exporting._limits("int8-dynamic", portable=False)
    assert limits == {"needs": INT8_FLAGS, "caveats": (exporting.DYNAMIC,)}
    assert ("this processor has none of avx512_vnni" in caplog.text) == without
    assert exporting.DYNAMIC in caplog.text
    caplog.clear()
    assert exporting._limits("int8", portable=True) == {"needs": (), "caveats": ()}
    assert not caplog.messages


def test_what_a_quantized_model_is_an_export_does_not_change(source, tmp_path):
    model = calibrated(tiny.model(layers=1), [BATCH], portable=False)
    save(model, tiny.tokenizer(), tmp_path / "model")
    manifest = export(tmp_path / "model", tmp_path / "out", to="onnx", precision="int8")
    assert manifest.needs == INT8_FLAGS
    assert manifest.parity.mean_change < 1e-4
    with pytest.raises(ModelError, match="quantized with portable: false, and an export keeps its numbers"):
        export(tmp_path / "model", tmp_path / "no", to="onnx", precision="int8", portable=True)
    with pytest.raises(ModelError, match="are for int8 and int8-dynamic, not for fp32"):
        export(source, tmp_path / "no", to="onnx", precision="fp32", portable=False)
    for runtime in ("onnx", "openvino"):
        with pytest.raises(ModelError, match=f"int8 for {runtime} needs training texts to calibrate on"):
            export(source, tmp_path / "no", to=runtime, precision="int8")
    assert not (tmp_path / "no").exists()


def test_the_command_line_offers_full_range(source, tmp_path, monkeypatch, capsys):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    told = ["export", source, "--to", "onnx", "--texts", tmp_path / "texts.txt", "--out", tmp_path / "out"]
    assert tiny.call(monkeypatch, *told, "--precision", "int8", "--no-portable") == 0
    assert "largest change with the texts beside it: 0.0000" in capsys.readouterr().out
    assert read_manifest(tmp_path / "out").needs == INT8_FLAGS
