"""The benchmark of any number of models in any runtime, from Python and from the command line."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from plankwise.core.hardware import fixed_threads
from plankwise.data.batching.inputs import Text
from plankwise.data.truncation import Truncation
from plankwise.deploy.deployed import open_model
from plankwise.evaluation.benchmark.benchmark import BenchmarkConfig, compare, compare_models
from plankwise.evaluation.benchmark.models import FP32, NAIVE, given_models
from plankwise.evaluation.benchmark.peak_memory import MemoryRequest, PeakMemory
from plankwise.run import evaluate

TEXTS: list[Text] = [str(row["text"]) for row in tiny.rows(11)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    (place / "texts.txt").write_text("\n".join(map(str, TEXTS)))
    tiny.save_source(place / "large")
    tiny.model(layers=1, labels=3).save_pretrained(place / "small")
    tiny.tokenizer().save_pretrained(place / "small")
    return place


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `plankwise bench` look for the peak of small matrix products only, which takes no time."""
    monkeypatch.setattr(evaluate, "bench", partial(evaluate.bench, gemm_sides=(64,)))


def config(**changes: Any) -> BenchmarkConfig:
    plain: dict[str, Any] = {"rounds": 3, "baselines": False, "memory": False, "gemm_sides": ()}
    return BenchmarkConfig(TEXTS, 1, **(plain | changes))


@pytest.mark.parametrize("threads", [1, None])
def test_threads_are_fixed_for_a_while(threads: int | None) -> None:
    before = torch.get_num_threads()
    with fixed_threads(threads) as used:
        assert torch.get_num_threads() == used == (threads or before)
    assert torch.get_num_threads() == before


def test_any_number_of_models_is_timed_whatever_their_labels(
    folders: Path, quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large, small = folders / "large", folders / "small"
    options = ["--texts", folders / "texts.txt", "--rounds", 3, "--threads", 1, "--no-baselines", "--no-memory"]
    assert tiny.call(monkeypatch, "bench", large, small, large, *options, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    names = [str(large), str(small), f"{large} (2)"]
    assert [each["name"] for each in document["models"]] == names
    assert list(document["throughput"]) == list(document["latency"]["32"]) == names
    assert set(document["latency"]) == {"32"}  # of 72 positions
    assert document["throughput"][str(large)]["speedup"] == 1.0
    assert document["baseline"] == str(large)
    assert (document["device"], document["threads"], document["rounds"]) == ("cpu", 1, 3)
    assert document["batching"]["texts"] == len(TEXTS)
    assert document["batching"]["reading"]["max_length"] == 72
    sizes = [sum(file.stat().st_size for file in each.iterdir()) for each in (large, small)]
    assert [each["size_bytes"] for each in document["models"]] == [*sizes, sizes[0]]
    assert set(document["load"]) == {"seconds", "cores", "own", "others", "load_average"}
    assert document["ceiling_gops"].keys() == {"fp32", "bf16", "int8"}


def test_the_command_shows_a_table(
    folders: Path, quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folders)
    options = ["--texts", "texts.txt", "--rounds", 3, "--threads", 1, "--no-baselines", "--no-memory"]
    assert tiny.call(monkeypatch, "bench", "large", "small", *options) == 0
    shown = capsys.readouterr().out
    assert "small" in shown
    assert "torch fp32" in shown
    assert "1.00× [1.00, 1.00]" in shown


def test_texts_are_left_out_where_all_would_take_too_long(folders: Path) -> None:
    document = compare([str(folders / "small")], config(bound_s=0.0))
    assert document["batching"]["texts"] == 8
    assert document["warnings"][0] == "timed on 8 of 11 texts: with all of them a few rounds take longer than 0 s"


def test_a_peak_memory_that_is_missing_has_a_reason(folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[MemoryRequest] = []

    def memory(request: MemoryRequest) -> PeakMemory:
        asked.append(request)
        return PeakMemory(4711) if request.folder.endswith("large") else PeakMemory(None, "the reset was refused")

    models = given_models([str(folders / "large"), str(folders / "small")])
    document = compare_models(models, config(memory=True, budget=64), memory=memory)
    assert [each["peak_memory_bytes"] for each in document["models"]] == [4711, None]
    expected = f"no peak memory of {folders / 'small'}: the reset was refused"
    assert expected in document["warnings"]
    assert expected in caplog.messages
    assert asked[0] == MemoryRequest(str(folders / "large"), Truncation(max_length=72), TEXTS, 64, 1)


def test_torch_models_are_timed_on_the_device_that_is_asked_for(folders: Path) -> None:
    """The device `meta` computes nothing and has no logits to return, so it shows where a model was put."""
    with pytest.raises(RuntimeError, match="meta tensors"):
        compare([str(folders / "small")], config(device=torch.device("meta")))
    assert open_model(folders / "small").runtime.name == "torch fp32"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(folders: Path) -> None:
    document = compare([str(folders / "large"), str(folders / "small")], config(device=torch.device("cuda")))
    assert document["device"] == "cuda"
    assert set(document["throughput"]) == {str(folders / "large"), str(folders / "small")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["./none", "--texts", "texts.txt"], "plankwise: there is no model folder ./none"),
        (["large"], "plankwise: give either --recipe, for the test texts of its task, or --texts FILE"),
        (["large", "--texts", "none.csv"], "plankwise: cannot read none.csv"),
        (["large", "--texts", "texts.txt", "--rounds", "2"], None),
    ],
)
def test_wrong_input_ends_in_one_line(
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str | None,
) -> None:
    monkeypatch.chdir(folders)
    assert tiny.call(monkeypatch, "bench", *arguments, "--no-baselines", "--no-memory") == 2
    if said:
        assert capsys.readouterr().err.splitlines()[-1].startswith(said)


@pytest.mark.filterwarnings("ignore")  # tracers warn of themselves
def test_fp32_baselines_are_timed_in_the_same_batches(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    folder = str(tiny.save_source(tmp_path / "source", layers=1))
    options: dict[str, Any] = {"rounds": 3, "budget": 64, "memory": False, "gemm_sides": ()}
    document = compare([folder], BenchmarkConfig(TEXTS, 2, **options))
    timed = document["throughput"]
    assert list(timed) == [folder, NAIVE, *FP32.values()]
    batches = {name: each["batches"] for name, each in timed.items()}
    assert batches.pop(NAIVE) == 2
    assert len(set(batches.values())) == 1
    streams = {folder: 1, NAIVE: 1, FP32["onnx"]: 2, FP32["openvino"]: 2}
    assert {name: each["streams"] for name, each in timed.items()} == streams
    assert set(timed[folder]["over"]) == {NAIVE, *FP32.values()}
    assert NAIVE not in document["latency"]["32"]
