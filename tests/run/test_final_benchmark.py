"""A run says how fast its last model is, and in which runtime that was measured: int8 where it is quantized."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tiny
from fake_runtime import MANIFEST
from plankwise.cli.tables import record_table
from plankwise.core.errors import ModelError
from plankwise.core.recipe import read_recipe
from plankwise.core.records import TORCH, read_record
from plankwise.deploy.manifest import Manifest
from plankwise.encoder.checkpoint import load_trained, save
from plankwise.encoder.fake_quantized import FakeQuantized
from plankwise.evaluation.benchmark.benchmark import BenchmarkConfig, compare_models
from plankwise.evaluation.benchmark.models import BenchmarkedModel
from plankwise.report.run_report import markdown, table
from plankwise.run.final_benchmark import benchmark_final
from plankwise.run.pipeline import check
from plankwise.run.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # tracers warn of themselves
OPENVINO, ONNX = "OpenVINO int8", "ONNX Runtime fp32"


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
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
    assert measured.speedup == timed["speedup"]
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


@pytest.fixture(scope="module")
def int8(recipe_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's source, quantized."""
    rounding = FakeQuantized(load_trained(str(recipe_path.parent / "source")))
    with torch.no_grad(), rounding.observing():
        rounding.network(**tiny.batch())
    rounding.quantize(rounding.names())
    folder = tmp_path_factory.mktemp("int8")
    save(rounding.finished().eval(), tiny.tokenizer(), folder / "model")
    return folder / "model"


class Exports:
    """Stands for `export`: notes what is asked for, and refuses one precision."""

    def __init__(self, refused: str = "") -> None:
        self.asked, self.refused = list[str](), refused

    def __call__(self, model: Path | str, out: Path, *, to: str, precision: str, **options: Any) -> Manifest:
        self.asked.append(f"{Path(model).name} to {to} {precision}")
        assert options["truncation"].max_length == 32
        if precision == self.refused:
            raise ModelError("the model changes a probability by 0.9")
        return MANIFEST


class Timings:
    """Stands for `compare_models`: the baseline takes 8 ms a text, the compressed model 2 ms, any other 4 ms."""

    def __init__(self, fails: bool = False) -> None:
        self.models, self.fails = list[list[BenchmarkedModel]](), fails
        self.config: BenchmarkConfig | None = None

    def __call__(self, models: Sequence[BenchmarkedModel], config: BenchmarkConfig) -> dict[str, Any]:
        self.models.append(list(models))
        self.config = config
        if self.fails and len(self.models) == 1:
            raise ModelError("no such kernel")
        milliseconds = {"baseline": 8.0, "compressed": 2.0}
        return {
            **dict.fromkeys(("device", "threads", "rounds", "load", "warnings")),
            "latency": {},
            "throughput": {each.name: figure(milliseconds.get(each.name, 4.0), models) for each in models},
            "batching": {"texts": 24},
        }


def figure(milliseconds: float, models: Sequence[BenchmarkedModel]) -> dict[str, Any]:
    over = {each.name: {"speedup": 4 / milliseconds, "spread": [0.5, 2.5]} for each in models[2:]}
    return {"ms_per_text": milliseconds, "speedup": 8 / milliseconds, "spread": [1.0, 9.0], "over": over, "streams": 1}


def timed(
    recipe_path: Path,
    model: Path,
    exporter: Exports,
    compare: Callable[..., dict[str, Any]],
    missing: Sequence[str] = (),
    **evaluation: Any,
) -> dict[str, Any]:
    overrides = [f"evaluation.{key}={str(value).lower()}" for key, value in evaluation.items()]
    checked = check(read_recipe(recipe_path, Recipe, overrides))

    def absent(runtime: str) -> list[str]:
        return ["it"] if runtime in missing else []

    baseline = recipe_path.parent / "source"
    return benchmark_final(
        checked.task, checked.recipe, baseline, model, exporter=exporter, compare=compare, missing=absent
    )


def test_a_floating_point_model_is_timed_in_torch_beside_the_baseline_in_onnx_runtime(recipe_path: Path) -> None:
    source, exporter, timings = recipe_path.parent / "source", Exports(), Timings()
    told = timed(recipe_path, source, exporter, timings)
    assert exporter.asked == ["source to onnx fp32"]
    assert (told["runtime"], told["runtimes"]) == (TORCH, {"baseline": TORCH, "compressed": TORCH})
    assert told["throughput"] == {
        "baseline": {"ms_per_text": 8.0},
        "compressed": {"ms_per_text": 2.0},
        ONNX: {"ms_per_text": 4.0},
        "speedup": 4.0,
        "spread": [1.0, 9.0],
        "over": {ONNX: {"speedup": 2.0, "spread": [0.5, 2.5]}},
        "texts": 24,
    }
    [[baseline, compressed, onnx]] = timings.models
    assert (baseline.folder, compressed.folder, onnx.name) == (str(source), str(source), ONNX)
    config = timings.config
    assert config is not None
    assert config.truncation is not None
    assert (config.rounds, config.threads, config.truncation.max_length) == (3, 1, 32)
    assert (config.baselines, config.memory, config.gemm_sides, config.refuse_unknown) == (False, False, (), False)


@pytest.mark.parametrize(("missing", "wanted"), [(("onnx",), True), ((), False)])
def test_onnx_runtime_is_left_out_where_it_is_missing_or_unwanted(
    recipe_path: Path, missing: tuple[str, ...], wanted: bool
) -> None:
    """The rest is timed for real."""
    exporter = Exports()
    told = timed(recipe_path, recipe_path.parent / "source", exporter, compare_models, missing, onnx_baseline=wanted)
    assert exporter.asked == []
    assert set(told["throughput"]) == {"baseline", "compressed", "speedup", "spread", "over", "texts"}
    assert set(told["latency"]) == {"32"}  # the tiny models have 72 positions
    assert set(told["latency"]["32"]["baseline"]) == {"p50_ms", "p95_ms"}
    assert told["throughput"]["texts"] == len(check(read_recipe(recipe_path, Recipe)).task.splits["test"])
    assert (told["device"], told["threads"], told["rounds"]) == ("cpu", 1, 3)
    assert told["throughput"]["over"] == {}


@pytest.mark.parametrize(("missing", "runtime"), [((), OPENVINO), (("openvino",), "ONNX Runtime int8")])
def test_a_quantized_model_is_timed_in_a_runtime_for_int8(
    recipe_path: Path, int8: Path, missing: tuple[str, ...], runtime: str
) -> None:
    exporter, timings = Exports(), Timings()
    told = timed(recipe_path, int8, exporter, timings, missing)
    name = "openvino" if runtime == OPENVINO else "onnx"
    assert exporter.asked == [f"model to {name} int8", "source to onnx fp32"]
    assert told["runtimes"] == {"baseline": TORCH, "compressed": runtime}
    [[_, compressed, _]] = timings.models
    assert Path(compressed.folder).name == "artefact"


@pytest.mark.parametrize(
    ("missing", "refused", "fails", "said"),
    [
        (("openvino", "onnx"), "", False, "no runtime for int8 is installed; pip install 'plankwise[openvino]'"),
        ((), "int8", False, "OpenVINO int8 cannot be timed: the model changes a probability by 0.9"),
        (("openvino",), "int8", False, "ONNX Runtime int8 cannot be timed: the model changes a probability by 0.9"),
        ((), "", True, "OpenVINO int8 cannot be timed: no such kernel"),
    ],
)
def test_a_quantized_model_that_cannot_be_timed_there_is_timed_in_torch(
    recipe_path: Path,
    int8: Path,
    caplog: pytest.LogCaptureFixture,
    missing: tuple[str, ...],
    refused: str,
    fails: bool,
    said: str,
) -> None:
    timings = Timings(fails)
    with caplog.at_level(logging.WARNING):
        told = timed(recipe_path, int8, Exports(refused), timings, missing)
    assert caplog.messages == [f"timed in torch eager, which computes int8 in fp32: {said}"]
    assert told["runtimes"] == {"baseline": TORCH, "compressed": TORCH}
    assert timings.models[-1][1].folder == str(int8)
