"""predict.py of an artefact runs where neither torch nor plankwise is, and says what the Predictor says."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest

import tiny
from plankwise.data.truncation import Truncation, Windows
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import FILE_NAME
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import save

PACKAGES = ("numpy", "tokenizers", "openvino", "onnxruntime")
TEXTS = [" ".join([row["text"]] * (1 + number % 4)) for number, row in enumerate(tiny.rows(12, 5))]
PAIRS = [(text, other) for text, other in zip(TEXTS, reversed(TEXTS), strict=True)]
READINGS = {
    "head": Truncation(max_length=12),
    "tail": Truncation(max_length=12, truncation="tail"),
    "head_tail": Truncation(max_length=12, truncation="head_tail"),
    "windows": Truncation(max_length=12, windows=Windows(stride=2, max_windows=2)),
    "one window": Truncation(max_length=12, windows=Windows(pooling="max", max_windows=1)),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has nothing but what an artefact needs."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        inside = Path(spec.origin).parent
        for each in (inside, inside.with_name(f"{name}.libs")):
            if each.exists():
                (packages / each.name).symlink_to(each)
    return folder / "bin" / "python"


def source(folder: Path, multi: bool = False) -> Path:
    model, tokenizer = tiny.model(layers=2, labels=3), tiny.tokenizer()
    model.config.problem_type = "multi_label_classification" if multi else "single_label_classification"
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    tokenizer.backend_tokenizer.enable_padding(direction="left", pad_id=0, pad_token="[PAD]", length=32)
    tokenizer.backend_tokenizer.enable_truncation(5, direction="left")
    save(model, tokenizer, folder)
    return folder


def run(python: Path, code: str, given: str = "") -> str:
    done = subprocess.run([python, "-c", code], input=given, capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("runtime", "multi"), [("openvino", False), ("onnx", True)])
def test_it_runs_without_torch_and_plankwise(bare, tmp_path, runtime, multi):
    for name in ("torch", "transformers", "plankwise"):
        with pytest.raises(AssertionError, match=f"No module named '{name}'"):
            run(bare, f"import {name}")
    export(
        source(tmp_path / "model", multi), tmp_path / "out", to=runtime, precision="fp32", truncation=READINGS["tail"]
    )
    done = subprocess.run(
        [bare, tmp_path / "out" / "predict.py"], input="\n".join(TEXTS), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    cut = sum(len(text.split()) + 2 > 12 for text in TEXTS)
    assert done.stderr == f"{cut} texts are longer than the model reads, and were cut or thinned\n"
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expected = Predictor(tmp_path / "out").probabilities(TEXTS)
    assert [list(each) for each in found] == [list(Predictor(tmp_path / "out").labels)] * len(TEXTS)
    np.testing.assert_allclose([list(each.values()) for each in found], expected, atol=1e-6)
    assert expected.std(axis=0).min() > 3e-5


def test_every_reading_is_that_of_training(bare, tmp_path):
    out = tmp_path / "out"
    manifest = export(source(tmp_path / "model"), out, to="openvino", precision="fp32", truncation=READINGS["head"])
    for name, truncation in READINGS.items():
        (out / FILE_NAME).write_text(
            manifest.model_copy(update={"truncation": truncation}).model_dump_json(by_alias=True)
        )
        texts = TEXTS if truncation.windows else [*TEXTS, *PAIRS]
        code = f"import sys, json; sys.path.insert(0, {str(out)!r}); from predict import Model\n"
        code += f"texts = [each if isinstance(each, str) else tuple(each) for each in {texts!r}]\n"
        code += f"print(json.dumps([list(each.values()) for each in Model({str(out)!r}).predict(texts)]))"
        predictor = Predictor(out)
        singles = predictor.probabilities(TEXTS)
        expected = singles if truncation.windows else np.concatenate([singles, predictor.probabilities(PAIRS)])
        np.testing.assert_allclose(json.loads(run(bare, code)), expected, atol=1e-6, err_msg=name)
        unexported = Predictor(tmp_path / "model", truncation=truncation).probabilities(TEXTS)
        np.testing.assert_allclose(singles, unexported, atol=1e-5, err_msg=name)


def test_torch_programs_need_no_plankwise(tmp_path):
    """The environment of the tests has plankwise; blocking it is as good as leaving it out."""
    import sys

    export(source(tmp_path / "model"), tmp_path / "out", to="torch", precision="fp32", truncation=READINGS["head"])
    code = "import sys, json; sys.modules['plankwise'] = sys.modules['transformers'] = None\n"
    code += f"sys.path.insert(0, {str(tmp_path / 'out')!r}); from predict import Model\n"
    code += f"print(json.dumps([list(each.values()) for each in Model({str(tmp_path / 'out')!r}).predict({TEXTS!r})]))"
    found = json.loads(run(Path(sys.executable), code))
    np.testing.assert_allclose(found, Predictor(tmp_path / "out").probabilities(TEXTS), atol=1e-5)
