"""Which models a benchmark times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fake_runtime import MANIFEST
from plankwise.core.errors import ModelError
from plankwise.data.truncation import Truncation
from plankwise.deploy.manifest import Manifest
from plankwise.evaluation.benchmark.models import FP32, NAIVE, BenchmarkedModel, fp32_baselines, given_models


def test_the_same_model_twice_has_two_names() -> None:
    assert [each.name for each in given_models(["a", "b", "a"])] == ["a", "b", "a (2)"]


def test_a_runtime_that_is_not_installed_is_left_out_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def export(folder: str, out: Path, *, to: str, **options: Any) -> Manifest:
        if to == "onnx":
            raise ModelError("--to onnx needs onnxruntime")
        return MANIFEST

    found = fp32_baselines(BenchmarkedModel("m", "m"), tmp_path, Truncation(), exporter=export)
    assert [each.name for each in found] == [NAIVE, FP32["openvino"]]
    assert [each.naive for each in found] == [True, False]
    warned = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warned == ["no baseline in ONNX Runtime fp32: --to onnx needs onnxruntime"]


def test_an_artefact_is_not_exported_again(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert fp32_baselines(BenchmarkedModel("m", str(tmp_path)), tmp_path, Truncation()) == []
