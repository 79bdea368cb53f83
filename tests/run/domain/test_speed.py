"""The models of an experiment in ONNX Runtime: what is exported, and what is compared with what."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import tiny
from plankwise.data.task import Task
from plankwise.data.truncation import Truncation
from plankwise.deploy.manifest import Timing
from plankwise.run.domain import speed
from plankwise.run.domain.speed import time_runtimes

TRUNCATION = Truncation(max_length=16)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return tiny.task()


def timer(folders: Mapping[str, Path], texts: Sequence[Any]) -> dict[str, Timing]:
    over = {"onnx fp32": None, "large int8": 1.5, "small fp32": 2.0, "small int8": 3.0}
    assert list(folders) == list(over)
    assert texts
    plain = {"spread": (1.0, 4.0), "others": {}, "texts": 1, "rounds": 1, "threads": 1}
    return {name: Timing(ms_per_text=6 / (speed or 1), over_fp32=speed, **plain) for name, speed in over.items()}  # type: ignore[arg-type]


def test_every_model_is_compared_with_the_large_one_in_fp32(task: Task) -> None:
    exported = []

    def exporter(model: Path, out: Path, **options: Any) -> Any:
        exported.append((model.name, options["to"], options["precision"], options["truncation"]))
        assert options["calibration"]
        assert options["texts"]
        out.mkdir()
        (out / "model").write_bytes(b"x" * len(exported))

    models = {"large": Path("large"), "small": Path("small")}
    found = time_runtimes(models, task, TRUNCATION, exporter=exporter, timer=timer)
    assert exported == [
        (model, "onnx", precision, TRUNCATION) for model in ("large", "small") for precision in ("fp32", "int8")
    ]
    assert {(name, key): each["speedup"] for name, row in found.items() for key, each in row.items()} == {
        ("large", "fp32"): 1.0,
        ("large", "int8"): 1.5,
        ("small", "fp32"): 2.0,
        ("small", "int8"): 3.0,
    }
    assert [each["size_bytes"] for row in found.values() for each in row.values()] == [1, 2, 3, 4]
    assert found["small"]["int8"]["ms_per_text"] == 2.0


def test_a_model_that_cannot_be_exported_leaves_the_column_out(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    def exporter(model: Path, out: Path, **_: Any) -> Any:
        raise RuntimeError("no such operator\nand more")

    with caplog.at_level(logging.WARNING):
        assert time_runtimes({"large": Path("large")}, task, TRUNCATION, exporter=exporter, timer=timer) == {}
    assert "prediction is not timed in ONNX Runtime: no such operator" in caplog.messages


def test_without_the_runtime_the_column_is_left_out(
    task: Task, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "missing_packages", lambda runtime: ["onnxruntime"])
    assert time_runtimes({"large": Path("large")}, task, TRUNCATION) == {}
    assert "pip install 'plankwise[onnx]'" in caplog.text
