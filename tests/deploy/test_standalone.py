"""predict.py of an artefact runs without torch and plankwise, and answers as the Predictor does."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import tiny
from deployables import Artefacts
from plankwise.data.batching.inputs import Text
from plankwise.data.truncation import Truncation, Windows
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import FILE_NAME, read_manifest, write_manifest
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import save

PACKAGES = ("numpy", "tokenizers", "openvino", "onnxruntime")
TELEMETRY = "openvino_telemetry"  # installed with OpenVINO
TEXTS = [" ".join([row["text"]] * (1 + number % 4)) for number, row in enumerate(tiny.rows(12, 5))]
PAIRS: list[Text] = [(text, other) for text, other in zip(TEXTS, reversed(TEXTS), strict=True)]
TRUNCATIONS = {
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
    (packages / TELEMETRY).symlink_to((packages / "openvino").resolve().with_name(TELEMETRY))
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


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of three labels and its artefact in OpenVINO."""
    folder = tmp_path_factory.mktemp("single")
    export(source(folder / "model"), folder / "out", to="openvino", precision="fp32", truncation=TRUNCATIONS["tail"])
    return folder / "model", folder / "out"


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact in ONNX with any number of labels for a text."""
    folder, truncation = tmp_path_factory.mktemp("multi"), TRUNCATIONS["tail"]
    export(source(folder / "model", multi=True), folder / "out", to="onnx", precision="fp32", truncation=truncation)
    return folder / "out"


def bare_environment() -> dict[str, str]:
    """Copy this process's environment without the paths by which plankwise might be found."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(python: Path, code: str) -> str:
    command = [str(python), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/", env=bare_environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def pipe(python: Path, artefact: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run predict.py on `TEXTS`."""
    command, given = [str(python), str(artefact / "predict.py")], "\n".join(TEXTS)
    environment = bare_environment() | variables
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_it_runs_without_torch_and_plankwise(bare: Path, single: tuple[Path, Path], multi: Path, runtime: str) -> None:
    artefact = single[1] if runtime == "openvino" else multi
    for name in ("torch", "transformers", "plankwise"):
        with pytest.raises(AssertionError, match=f"No module named '{name}'"):
            run(bare, f"import {name}")
    done = pipe(bare, artefact)
    assert done.returncode == 0, done.stderr
    cut = sum(len(text.split()) + 2 > 12 for text in TEXTS)
    assert done.stderr == f"{cut} texts are longer than the model reads, and were cut or thinned\n"
    found = [json.loads(line) for line in done.stdout.splitlines()]
    predictor = Predictor(artefact)
    expected = predictor.probabilities(TEXTS)
    assert [list(each) for each in found] == [list(predictor.labels)] * len(TEXTS)
    np.testing.assert_allclose([list(each.values()) for each in found], expected, atol=1e-6)
    assert expected.std(axis=0).min() > 3e-5  # the answers depend on the texts


def test_it_reports_to_nobody_that_it_ran(bare: Path, single: tuple[Path, Path], tmp_path: Path) -> None:
    assert pipe(bare, single[1], HOME=str(tmp_path)).returncode == 0
    assert not list(tmp_path.iterdir())  # OpenVINO's telemetry keeps an identifier there


def test_a_processor_without_the_instructions_is_one_line(bare: Path, multi: Path, tmp_path: Path) -> None:
    out = shutil.copytree(multi, tmp_path / "out")
    stored = json.loads((out / FILE_NAME).read_text())
    stored["needs"] = ["an_instruction_of_no_processor"]
    (out / FILE_NAME).write_text(json.dumps(stored))
    done = pipe(bare, out)
    [warning, _] = done.stderr.splitlines()  # the other line counts texts that were cut
    assert done.returncode == 0
    assert warning.startswith("predict.py: this processor has none of an_instruction_of_no_processor, which the model")
    assert warning.endswith("on random input probabilities differ by at most 0.0000, same labels 4 of 4")
    stored["check"]["logits"][0][0] += 3.0  # as if the exporting machine had answered otherwise
    (out / FILE_NAME).write_text(json.dumps(stored))
    refused = pipe(bare, out)
    [line] = refused.stderr.splitlines()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "differ by 0." in line
    assert line.endswith("allowed: 0.001. Export it again with portable weights")
    stored |= {"needs": [], "rows": stored["check"], "cpu": {"flags": ["an_instruction_of_no_processor"]}}
    (out / FILE_NAME).write_text(json.dumps(stored))
    other = pipe(bare, out)
    assert other.returncode == 1
    assert (
        "predict.py: the model was exported on a processor with an_instruction_of_no_processor, and this"
        in other.stderr
    )


def test_every_truncation_is_that_of_training(bare: Path, single: tuple[Path, Path], tmp_path: Path) -> None:
    out = shutil.copytree(single[1], tmp_path / "out")
    manifest = read_manifest(out)
    for name, truncation in TRUNCATIONS.items():
        write_manifest(out, manifest.model_copy(update={"truncation": truncation}))
        texts: list[Text] = [*TEXTS] if truncation.windows else [*TEXTS, *PAIRS]
        code = f"import sys, json; sys.path.insert(0, {str(out)!r}); from predict import Model\n"
        code += f"texts = [each if isinstance(each, str) else tuple(each) for each in {texts!r}]\n"
        code += f"print(json.dumps([list(each.values()) for each in Model({str(out)!r}).predict(texts)]))"
        predictor = Predictor(out)
        singles = predictor.probabilities(TEXTS)
        expected = singles if truncation.windows else np.concatenate([singles, predictor.probabilities(PAIRS)])
        np.testing.assert_allclose(json.loads(run(bare, code)), expected, atol=1e-6, err_msg=name)
        unexported = Predictor(single[0], truncation=truncation).probabilities(TEXTS)
        np.testing.assert_allclose(singles, unexported, atol=1e-5, err_msg=name)


def test_torch_programs_need_no_plankwise(artefacts: Artefacts) -> None:
    """The environment of the tests has plankwise; blocking it is as good as leaving it out."""
    folder = artefacts("torch", "fp32")
    code = "import sys, json; sys.modules['plankwise'] = sys.modules['transformers'] = None\n"
    code += f"sys.path.insert(0, {str(folder)!r}); from predict import Model\n"
    code += f"print(json.dumps([list(each.values()) for each in Model({str(folder)!r}).predict({TEXTS!r})]))"
    found = json.loads(run(Path(sys.executable), code))
    np.testing.assert_allclose(found, Predictor(folder).probabilities(TEXTS), atol=1e-5)
