"""A run that ends in `quantization` is timed in the runtime that multiplies int8, and says which one that was."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tiny
from plankwise.cli.tables import record_table
from plankwise.core.errors import ModelError
from plankwise.core.recipe import read_recipe
from plankwise.core.records import TORCH, read_record
from plankwise.report.run_report import markdown, table
from plankwise.run import deployed_benchmark as deployed
from plankwise.run.deployed_benchmark import deployed_benchmark
from plankwise.run.pipeline import check
from plankwise.run.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # tracers warn of themselves
OPENVINO, ONNX = "OpenVINO int8", "ONNX Runtime fp32"


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized")
    recipe = {
        "name": "small",
        "task": {"name": "table", "train": str(tiny.write_table(folder, 120))},
        "model": {"source": str(tiny.save_source(folder / "source", layers=1)), "max_length": 32},
        "baseline": {"epochs": 1, "batch_size": 16, "learning_rate": 1e-2},
        "steps": [{"method": "quantization"}],
        "evaluation": {"bootstrap": 100, "rounds": 3, "threads": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def test_a_run_says_how_fast_it_is_in_openvino(
    recipe_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    assert tiny.call(monkeypatch, "run", recipe_path, "--out", tmp_path / "run") == 0
    assert f"the baseline in {ONNX}" in " ".join(capsys.readouterr().out.split())
    measured = read_record(tmp_path / "run").final
    assert measured is not None
    assert (measured.timed_in.baseline, measured.timed_in.compressed) == (TORCH, OPENVINO)
    timed = measured.benchmark["throughput"]
    assert measured.speedup == timed["speedup"] > 0
    assert measured.speedup_over == {ONNX: timed["over"][ONNX]["speedup"]}
    assert set(timed) == {"baseline", "compressed", ONNX, "speedup", "spread", "over", "texts"}
    assert timed["texts"] == len(check(read_recipe(recipe_path, Recipe)).task.splits["test"])
    assert set(measured.benchmark["latency"]["32"]["compressed"]) == {"p50_ms", "p95_ms"}
    [row] = table([tmp_path / "run"])
    assert f"{measured.speedup:.2f}×, {OPENVINO} |" in markdown([row])
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{measured.speedup:.2f}×, {OPENVINO}" in page
    assert f"baseline, {TORCH}" in page
    shown = record_table(read_record(tmp_path / "run"), tmp_path)
    assert list(shown.columns[6].cells) == [f"1.00×\n{TORCH}", f"{measured.speedup:.2f}×\n{OPENVINO}"]


def timed(recipe_path: Path, monkeypatch: pytest.MonkeyPatch, export: Callable[..., Any]) -> Any:
    checked = check(read_recipe(recipe_path, Recipe))
    source = Path(str(checked.recipe.model.source))
    monkeypatch.setattr(deployed, "export", export)
    return deployed_benchmark(checked.task, checked.recipe, source, source)


def refused(*_: object, **__: object) -> None:
    raise ModelError("the model changes a probability by 0.9")


@pytest.mark.parametrize("missing", [("openvino",), ("openvino", "onnx")])
def test_the_runtime_is_one_that_is_installed(
    recipe_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: tuple[str, ...]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(deployed, "missing_packages", lambda runtime: ["it"] if runtime in missing else [])
    with caplog.at_level(logging.WARNING):
        assert timed(recipe_path, monkeypatch, lambda *_, **how: asked.append(how["to"]) or refused()) is None
    assert asked == (["onnx"] if len(missing) == 1 else [])
    [said] = [each.message for each in caplog.records]
    assert said.startswith("timed in torch eager, which computes int8 in fp32: ")
    assert ("ONNX Runtime int8 cannot be timed: the model changes" in said) == (len(missing) == 1)
    assert ("no runtime for int8 is installed" in said) == (len(missing) == 2)


def test_figures_are_those_of_the_artefact(recipe_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def figure(milliseconds: float, over: float | None = None) -> dict[str, Any]:
        others = {} if over is None else {ONNX: {"speedup": over, "spread": [over, over]}}
        return {"ms_per_text": milliseconds, "speedup": 8 / milliseconds, "spread": [1.0, 9.0], "over": others}

    seen: list[Any] = []

    def compare(subjects: Any, terms: Any) -> dict[str, Any]:
        seen.extend([[each.name for each in subjects], terms])
        return {
            **dict.fromkeys(("device", "threads", "rounds", "load", "warnings")),
            "latency": {},
            "throughput": {"baseline": figure(8.0, 0.5), "compressed": figure(2.0, 2.0), ONNX: figure(4.0)},
            "batching": {"texts": 24},
        }

    monkeypatch.setattr(deployed, "compare_subjects", compare)
    monkeypatch.setattr(deployed, "fp32_baseline", lambda *_: deployed.Subject(ONNX, "there"))
    monkeypatch.setattr(deployed, "missing_packages", lambda runtime: [])
    told = timed(recipe_path, monkeypatch, lambda *_, **__: None)
    assert told["throughput"] == {
        "baseline": {"ms_per_text": 8.0},
        "compressed": {"ms_per_text": 2.0},
        ONNX: {"ms_per_text": 4.0},
        "speedup": 4.0,
        "spread": [1.0, 9.0],
        "over": {ONNX: {"speedup": 2.0, "spread": [2.0, 2.0]}},
        "texts": 24,
    }
    assert seen[0] == ["baseline", "compressed", ONNX]
    assert (seen[1].rounds, seen[1].threads, seen[1].truncation.max_length) == (3, 1, 32)
