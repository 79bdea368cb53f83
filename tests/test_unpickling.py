"""Nothing here unpickles: weights go through torch's weights-only reader, and what that refuses is one line."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from plankwise.core.errors import CheckpointError, ModelError
from plankwise.deploy.runtimes import TorchProgram
from plankwise.encoder.checkpoint import load_classifier, load_trained
from plankwise.training import checkpoints
from plankwise.training.fit import Training, fit
from plankwise.training.trainer import TrainingData

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))
UNSAFE = re.compile(
    r"pickle\.loads?\(|Unpickler\(|read_pickle|\b(joblib|dill|cloudpickle|shelve)\b|allow_pickle=True"
    r"|weights_only=False|trust_remote_code=True"
)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_no_source_unpickles() -> None:
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert not UNSAFE.search(text), path
        assert text.count("torch.load(") == len(re.findall(r"torch\.load\([^\n]*weights_only=True", text)), path
        assert "torch.export.load(" not in text or "TORCH_FORCE_WEIGHTS_ONLY_LOAD" in text, path


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "written"


def as_pickle(thing: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(thing, protocol=4))


@pytest.mark.parametrize("write", [as_pickle, torch.save], ids=["pickle", "torch"])
@pytest.mark.parametrize("sharded", [False, True])
def test_hostile_weights_are_refused_in_a_line(tmp_path: Path, trap: Path, write: Any, sharded: bool) -> None:
    source = tiny.save_source(tmp_path / "m", layers=1)
    (source / "model.safetensors").unlink()
    name = "pytorch_model-00001-of-00001.bin" if sharded else "pytorch_model.bin"
    if sharded:
        index = {"metadata": {}, "weight_map": {"classifier.weight": name}}
        (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    write({"classifier.weight": Hostile(trap)}, source / name)
    for load in (load_trained, lambda place: load_classifier(place, ("a", "b"))):
        with pytest.raises(ModelError, match="are a pickle that torch's weights-only reader refuses") as refused:
            load(str(source))
        assert "\n" not in str(refused.value)
    assert not trap.exists()


def test_tensors_in_a_pickle_are_read(tmp_path: Path) -> None:
    source = tiny.save_source(tmp_path / "m", layers=1)
    before = load_trained(str(source))
    torch.save(before.state_dict(), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    assert torch.equal(load_trained(str(source))(**tiny.batch()).logits, before(**tiny.batch()).logits)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}q\x00(", b"PK\x03\x04abc", b"version https://git-lfs"])
def test_damaged_weights_are_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    source = tiny.save_source(tmp_path / "m", layers=1)
    for name in ("model.safetensors", "pytorch_model.bin"):
        (source / name).write_bytes(content)
        with pytest.raises(ModelError, match="the weights of") as refused:
            load_trained(str(source))
        assert "\n" not in str(refused.value)
        (source / name).unlink()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(1, 3),)), str(path))
    return path


class TestPrograms:
    """`torch.export.load` unpickles example inputs, weights and objects that a file brings."""

    def changed(self, program: Path, folder: Path, **contents: bytes) -> Path:
        """Copy a program with other contents in the files whose names end so, or that are new."""
        with zipfile.ZipFile(program) as old, zipfile.ZipFile(folder / "model.pt2", "w") as new:
            for name in old.namelist():
                key = next((each for each in contents if name.endswith(each)), None)
                new.writestr(name, old.read(name) if key is None else contents.pop(key))
            for name, content in contents.items():
                new.writestr(f"model/{name}", content)
        return folder / "model.pt2"

    def test_a_sound_one_is_loaded(self, program: Path) -> None:
        assert TorchProgram(program).name == "torch"

    def test_hostile_example_inputs_are_refused(self, program: Path, tmp_path: Path, trap: Path) -> None:
        torch.save(Hostile(trap), tmp_path / "hostile.pt")
        path = self.changed(program, tmp_path, **{"sample_inputs/model.pt": (tmp_path / "hostile.pt").read_bytes()})
        with pytest.raises(ModelError, match="holds a pickle that torch's weights-only reader refuses"):
            TorchProgram(path)
        assert not trap.exists()

    def test_hostile_constants_are_refused(self, program: Path, tmp_path: Path, trap: Path) -> None:
        told = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        contents = {
            "model_constants_config.json": json.dumps({"config": {"c": told}}).encode(),
            "data/constants/opaque_obj_0": pickle.dumps(Hostile(trap)),
        }
        with pytest.raises(ModelError, match="holds opaque_obj_0, an object that would be unpickled"):
            TorchProgram(self.changed(program, tmp_path, **contents))
        assert not trap.exists()


def test_a_hostile_checkpoint_of_a_training_is_refused(tmp_path: Path, trap: Path) -> None:
    examples = [{"input_ids": [2, 5, 3], "attention_mask": [1, 1, 1], "labels": 0} for _ in range(4)]
    material = TrainingData(
        examples,
        lambda some: {name: torch.tensor([each[name] for each in some]) for name in some[0]},
        lambda outputs, batch: outputs.logits.square().mean(),
        equal_lengths=True,
    )
    training = Training(epochs=1, batch_size=2, keep="last")
    fit(tiny.model(layers=1), material, training, seed=0, folder=tmp_path / "work")
    saved = sorted((tmp_path / "work").glob("checkpoint-*"))[-1]
    torch.save({"state": Hostile(trap)}, saved / "optimizer.pt")
    belongs_to = json.loads((saved / checkpoints.SEAL).read_text())["belongs_to"]
    checkpoints.seal(saved, belongs_to, finished=False)
    with pytest.raises(CheckpointError, match="holds a pickle that torch's weights-only reader refuses; delete it"):
        fit(tiny.model(layers=1), material, training, seed=0, folder=tmp_path / "work")
    assert not trap.exists()
