"""Int8 artefacts compute exact integers on every processor, give a text the same answer in any batch, or say so."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import tiny
from deployables import TEXTS, Artefacts
from plankwise.core.errors import ModelError
from plankwise.core.hardware import INT8_FLAGS
from plankwise.core.progress import muted
from plankwise.deploy.export.calibrated import calibrated
from plankwise.deploy.export.export import DYNAMIC_CAVEAT, export, warn_of_limits
from plankwise.deploy.export.onnx import Int8Linear
from plankwise.deploy.manifest import read_manifest
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_trained, save
from plankwise.encoder.quantized import QuantizedLinear

BATCH = {name: value.numpy() for name, value in tiny.batch().items() if name in ("input_ids", "attention_mask")}
Integers = npt.NDArray[np.int64]


def int8_of(model: Path) -> list[Integers]:
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
def test_weights_are_int8_of_7_bits_unless_full_range_is_wanted(
    source: Path, artefacts: Artefacts, runtime: str, precision: str
) -> None:
    named = load_trained(str(source)).named_parameters()
    in_layers = sum(each.numel() for name, each in named if ".layer." in name and each.dim() == 2)
    largest = {}
    for portable in (None, False):
        out = artefacts(runtime, precision, portable)
        manifest = read_manifest(out)
        assert manifest.needs == (INT8_FLAGS if portable is False else ())
        found = int8_of(out / manifest.model)
        assert sum(each.size for each in found) >= in_layers
        largest[portable] = max(int(np.abs(each).max()) for each in found)
    assert largest[False] in (127, 128)
    assert largest[None] in (63, 64)  # two products of 64 and 255 fit into 16 bits


def test_no_product_of_activations_is_of_integers(artefacts: Artefacts, tmp_path: Path) -> None:
    """Bert's attention is one operation, that of mpnet is written out."""
    import openvino

    save(tiny.model("mpnet", layers=1), tiny.tokenizer(), tmp_path / "model")
    export(tmp_path / "model", tmp_path / "out", to="openvino", precision="int8", calibration=TEXTS)
    for folder, layers in ((artefacts("openvino", "int8"), 2), (tmp_path / "out", 1)):
        products = 0
        for op in openvino.Core().read_model(folder / "openvino/openvino_model.xml").get_ops():
            if op.get_type_name() in ("MatMul", "ScaledDotProductAttention"):
                sides = [origin(side.get_node()).get_type_name() for side in op.input_values()[:2]]
                products += sides == ["FakeQuantize", "Constant"]
                assert sides.count("FakeQuantize") < 2
        assert products >= 6 * layers  # queries, keys, values, output and two of the feed-forward network


def origin(node: Any) -> Any:
    """Find the operation that a value comes from, beyond changes of shape and type."""
    while node.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape", "Transpose"):
        node = node.input_value(0).get_node()
    return node


def by_hand(linear: QuantizedLinear, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Compute a projection in whole numbers of 64 bits."""
    zero, step = int(linear.input_zero), float(linear.input_scale)
    seen = (np.rint(values / np.float32(step)).astype(np.int64) + zero).clip(0, 255) - zero
    assert linear.bias is not None
    summed = seen @ linear.weight.numpy().astype(np.int64).T
    found: npt.NDArray[np.float64] = summed * (step * linear.scale.double().numpy()) + linear.bias.numpy()
    return found


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_kernels_compute_integers_by_hand_at_the_worst(tmp_path: Path, runtime: str) -> None:
    """All weights and inputs as large as they get, with one sign and with both: where sums would saturate first."""
    draw = np.random.default_rng(0)
    weights = draw.integers(-63, 64, (8, 64))
    weights[0], weights[1], weights[2] = 63, -63, 63 * (-1) ** np.arange(64)
    values = np.concatenate([np.full((1, 64), 99.0), np.full((1, 64), -99.0), 3 * draw.normal(size=(6, 64))])
    values = values.astype(np.float32).reshape(2, 4, 64)
    for zero in (0, 128, 255):
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
def test_int8_answers_do_not_depend_on_neighbours(artefacts: Artefacts, runtime: str) -> None:
    folder = artefacts(runtime, "int8")
    manifest, predictor = read_manifest(folder), Predictor(folder)
    alone = np.concatenate([predictor.probabilities([text]) for text in TEXTS])
    assert np.abs(alone - predictor.probabilities(TEXTS)).max() < 1e-5
    assert manifest.parity is not None
    assert manifest.parity.neighbour_change is not None
    assert manifest.parity.neighbour_change < 1e-5
    assert not manifest.caveats


def test_dynamic_int8_says_that_answers_depend_on_neighbours(artefacts: Artefacts) -> None:
    manifest = read_manifest(artefacts("onnx", "int8-dynamic"))
    assert manifest.caveats == (DYNAMIC_CAVEAT,)
    assert manifest.parity is not None
    assert manifest.parity.neighbour_change is not None
    assert manifest.parity.neighbour_change > 1e-5


@pytest.mark.parametrize("saturating", [True, False])
def test_what_an_artefact_cannot_promise_is_logged(saturating: bool, caplog: pytest.LogCaptureFixture) -> None:
    limits = warn_of_limits("int8-dynamic", False, saturating=saturating)
    assert limits == {"needs": INT8_FLAGS, "caveats": (DYNAMIC_CAVEAT,)}
    assert ("this processor has none of avx512_vnni" in caplog.text) == saturating
    assert DYNAMIC_CAVEAT in caplog.text
    caplog.clear()
    assert warn_of_limits("int8", True, saturating=saturating) == {"needs": (), "caveats": ()}
    assert not caplog.messages


def test_an_export_keeps_the_bits_of_a_quantized_model(source: Path, tmp_path: Path) -> None:
    model = calibrated(tiny.model(layers=1), [BATCH], portable=False)
    save(model, tiny.tokenizer(), tmp_path / "model")
    manifest = export(tmp_path / "model", tmp_path / "out", to="onnx", precision="int8")
    assert manifest.needs == INT8_FLAGS
    assert manifest.parity is not None
    assert manifest.parity.source == "random token ids"
    assert manifest.parity.mean_change is not None
    assert manifest.parity.mean_change < 1e-4
    with pytest.raises(ModelError, match="quantized with portable: false, and an export keeps its numbers"):
        export(tmp_path / "model", tmp_path / "no", to="onnx", precision="int8", portable=True)
    with pytest.raises(ModelError, match="are for int8 and int8-dynamic, not for fp32"):
        export(source, tmp_path / "no", to="onnx", precision="fp32", portable=False)
    for runtime in ("onnx", "openvino"):
        with pytest.raises(ModelError, match=f"int8 for {runtime} needs training texts to calibrate on"):
            export(source, tmp_path / "no", to=runtime, precision="int8")
    assert not (tmp_path / "no").exists()


def test_the_command_line_offers_full_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny.save_source(tmp_path / "model", layers=1)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    options = ["--to", "openvino", "--texts", tmp_path / "texts.txt", "--no-timing", "--out", tmp_path / "out"]
    assert tiny.call(monkeypatch, "export", source, *options, "--precision", "int8", "--no-portable") == 0
    assert "largest change with the texts beside it: 0.0000" in capsys.readouterr().out
    assert read_manifest(tmp_path / "out").needs == INT8_FLAGS
