"""Which runtime and precision an export takes: named, known of a processor, or measured; what it says of its speed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import tiny
from plankwise.core.errors import ModelError
from plankwise.data.truncation import Truncation
from plankwise.deploy.deployed import Deployed, bare_tokenizer
from plankwise.deploy.export.export import PACKAGES, check_request
from plankwise.deploy.manifest import FILE_NAME, Manifest, Parity, Timing, read_manifest, write_manifest
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_config, save
from plankwise.encoder.fake_quantized import FakeQuantized
from plankwise.encoder.quantized import is_quantized
from plankwise.evaluation.benchmark import artefact_timing
from plankwise.evaluation.benchmark.artefact_timing import time_artefacts
from plankwise.run import artefacts
from plankwise.run import candidates as module
from plankwise.run.candidates import AUTO, Candidate, candidates, held_against

ALL = ["openvino int8", "onnx int8", "openvino fp32", "onnx fp32"]
MANIFEST = Manifest(
    runtime="openvino",
    precision="int8",
    model="model.xml",
    kind="single_label",
    labels=("bad", "good"),
    inputs=("input_ids", "attention_mask"),
    padding={"input_ids": 0, "attention_mask": 0},
    truncation=Truncation(max_length=16),
    parity=Parity(texts=1, source="", logit_error=0, probability_change=0, agreement=1, tolerance=1),
)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let these runtimes be installed, whatever there is; all of them at first."""

    def only(*runtimes: str) -> None:
        absent = {each for runtime, names in PACKAGES.items() if runtime not in runtimes for each in names}
        there = [each for names in PACKAGES.values() for each in names if each not in absent]
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in there else None)

    only("openvino", "onnx", "torch")
    return only


class TestCandidates:
    @pytest.mark.parametrize(
        ("to", "precision", "processor", "expected"),
        [
            (AUTO, AUTO, None, ALL),
            ("openvino", AUTO, None, ["openvino int8", "openvino fp32"]),
            ("torch", AUTO, None, ["torch fp32"]),
            (AUTO, "fp32", None, ["openvino fp32", "onnx fp32"]),
            (AUTO, "bf16", None, ["openvino bf16"]),
            ("onnx", "int8", None, ["onnx int8"]),
            (AUTO, AUTO, "vnni", ALL),
            (AUTO, AUTO, "avx2", ["onnx int8", "openvino fp32", "onnx fp32", "openvino int8"]),
            ("openvino", AUTO, "avx2", ["openvino fp32", "openvino int8"]),
        ],
    )
    def test_are_what_was_left_open(self, installed, to, precision, processor, expected):
        assert [str(each) for each in candidates(to, precision, processor)] == expected

    def test_are_installed(self, installed):
        installed("onnx")
        assert [str(each) for each in candidates(AUTO, AUTO)] == ["onnx int8", "onnx fp32"]
        installed()
        [*left] = candidates(AUTO, AUTO)
        assert [str(each) for each in left] == ["openvino int8"]
        with pytest.raises(ModelError, match=r"needs openvino and nncf: pip install 'plankwise\[openvino\]'"):
            check_request(left[0].runtime, left[0].precision, Path("out"))

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("tensorrt", AUTO), "no runtime 'tensorrt'; Allowed: openvino, onnx, torch, auto"),
            ((AUTO, "int9"), "no precision 'int9'; did you mean 'int8'"),
            ((AUTO, AUTO, "sse"), "no processor 'sse'; Allowed: vnni, avx2, arm"),
        ],
    )
    def test_have_names(self, arguments, said):
        with pytest.raises(ModelError, match=said):
            candidates(*arguments)

    def test_are_held_against_fp32_and_the_other_runtime(self, installed):
        def against(*wanted: tuple[Any, str]) -> list[str]:
            return [str(each) for each in held_against([Candidate(*each) for each in wanted])]

        assert against(("openvino", "int8")) == ["openvino fp32", "onnx int8"]
        assert against(("openvino", "bf16")) == ["openvino fp32"]
        assert against(("onnx", "fp32")) == ["openvino fp32"]
        assert against(("openvino", "int8"), ("onnx", "int8")) == ["openvino fp32", "onnx fp32"]
        installed("openvino")
        assert against(("openvino", "int8")) == ["openvino fp32"]


def timing(milliseconds: float, over: float | None = None) -> Timing:
    spread = None if over is None else (over, over)
    return Timing(ms_per_text=milliseconds, over_fp32=over, spread=spread, others={}, texts=9, rounds=5, threads=2)


@pytest.fixture
def made(installed: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Exports that take no time: `faults` are raised, `times` are measured; `asked` and `timed` say what was done."""
    happened: dict[str, Any] = {"faults": {}, "asked": [], "sources": [], "timed": [], "times": {}}

    def export(model: str | Path, out: Path, *, to: Any, precision: str, **options: Any) -> Manifest:
        name = f"{to} {precision}"
        happened["asked"].append(name)
        if name in happened["faults"]:
            raise happened["faults"][name]
        happened["sources"].append(load_config(str(model)))
        out.mkdir(parents=True)
        (out / "model").write_text(name)
        written = MANIFEST.model_copy(update={"runtime": to, "precision": precision})
        write_manifest(out, written)
        return written

    def measure(folders: Any, texts: Any) -> dict[str, Timing]:
        happened["timed"] = list(folders)
        assert all((folder / "model").read_text() == name for name, folder in folders.items())
        return {name: happened["times"].get(name, timing(50.0)) for name in folders}

    for place in (module, artefacts):
        monkeypatch.setattr(place, "export", export)
    monkeypatch.setattr(module, "time_artefacts", measure)
    monkeypatch.chdir(tmp_path)
    tiny.save_source(tmp_path / "model", layers=1)
    (tmp_path / "texts.txt").write_text("a fine day\n")
    return happened


AVX2 = {
    "openvino int8": timing(24.0, 17.7 / 24.0),
    "onnx int8": timing(13.2, 19.3 / 13.2),
    "openvino fp32": timing(17.7),
    "onnx fp32": timing(19.3),
}


def quantized(model: PreTrainedModel) -> PreTrainedModel:
    rounding = FakeQuantized(model)
    with torch.no_grad(), rounding.observing():
        rounding.network(**tiny.batch())
    rounding.quantize(rounding.names())
    return rounding.finished().eval()


class TestExport:
    def test_the_fastest_is_written(self, made):
        made["times"] = AVX2
        found = artefacts.export_model("model", Path("out"), texts=Path("texts.txt"))
        assert made["asked"] == made["timed"] == ALL
        assert (found.runtime, found.precision, found.timing) == ("onnx", "int8", AVX2["onnx int8"])
        assert read_manifest(Path("out")) == found
        assert {each.name for each in Path("out").iterdir()} == {"model", FILE_NAME}
        assert Path("out/model").read_text() == "onnx int8"

    def test_what_fails_is_left_out_and_named(self, made, caplog):
        made["faults"]["onnx int8"] = ModelError("changes a probability by 0.9\nand more")
        made["times"] = AVX2
        assert artefacts.export_model("model", Path("out"), texts=Path("texts.txt")).precision == "fp32"
        assert "onnx int8 is left out: changes a probability by 0.9" in caplog.messages

    def test_where_all_fail_the_first_fault_is_raised_and_nothing_written(self, made):
        made["faults"] = {name: ModelError(f"no {name}") for name in ALL}
        with pytest.raises(ModelError, match="no openvino int8"):
            artefacts.export_model("model", Path("out"), texts=Path("texts.txt"))
        assert {each.name for each in Path().iterdir()} == {"model", "texts.txt"}

    def test_what_is_asked_for_is_obeyed_and_called_slow(self, made, monkeypatch, capsys, caplog):
        made["times"] = AVX2
        options = ["--to", "openvino", "--precision", "int8", "--texts", "texts.txt"]
        assert tiny.call(monkeypatch, "export", "model", "--out", "out", *options) == 0
        assert made["asked"] == ["openvino int8", "openvino fp32", "onnx int8"]
        assert read_manifest(Path("out")).precision == "int8"
        [said] = [each for each in caplog.messages if "slower" in each]
        assert said == (
            "openvino int8 is slower than fp32 here: 24 ms a text against 17.7; "
            "faster: onnx int8 13.2, openvino fp32 17.7"
        )
        shown = capsys.readouterr().out
        assert "here 24 ms a text, 0.74× [0.74, 0.74] as fast as fp32 in the same runtime; 9 texts, 5 rounds" in shown

    def test_a_fault_of_the_only_one_is_raised_before_others_are_made(self, made):
        made["faults"]["openvino int8"] = ModelError("changes a probability by 0.9")
        with pytest.raises(ModelError, match=r"by 0\.9"):
            artefacts.export_model("model", Path("out"), "openvino", "int8", texts=Path("texts.txt"), timed=True)
        assert made["asked"] == ["openvino int8"]

    def test_a_quantized_model_has_int8_alone(self, made):
        save(quantized(tiny.model(layers=1)), tiny.tokenizer(), "model")
        made["times"] = {"openvino fp32": timing(1.0)}
        assert artefacts.export_model("model", Path("out"), texts=Path("texts.txt")).precision == "int8"
        assert made["timed"] == ["openvino int8", "onnx int8", "openvino fp32", "onnx fp32"]
        assert [is_quantized(each) for each in made["sources"]] == [True, True, False, False]
        assert {each.name for each in Path("out").iterdir()} == {"model", FILE_NAME}

    @pytest.mark.parametrize(("processor", "expected"), [("vnni", "openvino int8"), ("avx2", "onnx int8")])
    def test_for_another_processor_nothing_is_measured(self, made, caplog, processor, expected):
        found = artefacts.export_model("model", Path("out"), texts=Path("texts.txt"), processor=processor)
        assert (f"{found.runtime} {found.precision}", made["asked"], made["timed"]) == (expected, [expected], [])
        assert f"{expected}: what is known to suit {processor}; it was not measured" in caplog.messages

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ([], "what is fastest here is measured on texts: give --recipe or --texts, or name --to and --precision"),
            (["--texts", "texts.txt", "--no-timing"], "--no-timing leaves nothing to choose by"),
            (["--to", "onnx"], "what is fastest here is measured on texts"),
            (["--for", "sse"], "no processor 'sse'; Allowed: vnni, avx2, arm"),
            (["--for", "avx2", "--to", "onnx", "--precision", "fp32"], "for avx2: onnx fp32 is named already"),
        ],
    )
    def test_what_leaves_no_choice_is_refused_at_once(self, made, monkeypatch, capsys, options, said):
        assert tiny.call(monkeypatch, "export", "model", "--out", "out", *options) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"plankwise: {said}")
        assert made["asked"] == []

    def test_without_texts_or_with_no_timing_what_is_named_is_made_alone(self, made, monkeypatch, caplog):
        caplog.set_level(logging.INFO)
        named = ["--to", "onnx", "--precision", "int8"]
        assert tiny.call(monkeypatch, "export", "model", "--out", "one", *named) == 0
        assert "onnx int8 is not timed: there are no texts; give --recipe or --texts" in caplog.messages
        assert (
            tiny.call(monkeypatch, "export", "model", "--out", "two", *named, "--texts", "texts.txt", "--no-timing")
            == 0
        )
        assert tiny.call(monkeypatch, "export", "model", "--out", "three", "--precision", "fp32") == 0
        assert (made["asked"], made["timed"]) == (["onnx int8", "onnx int8", "openvino fp32"], [])


class Timed:
    """A runtime whose every call takes so many seconds."""

    name, streams, threads = "timed", 1, 2

    def __init__(self, clock: SimpleNamespace, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def __call__(self, inputs: Any) -> Any:
        self.clock.now += self.seconds
        return np.zeros((len(inputs["input_ids"]), 2), dtype=np.float32)


class TestTiming:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        clock = SimpleNamespace(now=0.0)
        monkeypatch.setattr("time.perf_counter", lambda: clock.now)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setattr(artefact_timing, "load_warnings", lambda load, threads: [])
        seconds = {"openvino int8": 0.024, "openvino fp32": 0.018, "onnx int8": 0.012}

        def opened(folder: Path, mode: str) -> Deployed:
            runtime, precision = folder.name.split()
            own = MANIFEST.model_copy(update={"runtime": runtime, "precision": precision})
            return Deployed(own, bare_tokenizer(tiny.tokenizer()), Timed(clock, clock.slower * seconds[folder.name]))

        monkeypatch.setattr(artefact_timing, "open_model", opened)
        clock.folders, clock.slower = {name: Path(name) for name in seconds}, 1.0
        return clock

    def test_is_held_against_fp32_of_its_own_runtime(self, clock):
        found = time_artefacts(clock.folders, ["a fine day"] * 4)  # one batch
        slow = found["openvino int8"]
        assert slow.ms_per_text == pytest.approx(24.0 / 4)
        assert slow.over_fp32 == pytest.approx(18 / 24)
        assert slow.spread == pytest.approx((18 / 24, 18 / 24))
        assert slow.others == {"openvino fp32": pytest.approx(18 / 4), "onnx int8": pytest.approx(12 / 4)}
        assert (slow.texts, slow.rounds, slow.threads) == (4, 5, 2)
        assert found["onnx int8"].over_fp32 is None
        assert found["openvino fp32"].over_fp32 is None

    @pytest.mark.parametrize(("slower", "texts"), [(1.0, 64), (7.9, 10), (1000.0, 8)])
    def test_texts_are_as_many_as_there_is_time_for(self, clock, slower, texts):
        clock.slower = slower * 4  # four texts are one batch
        many = ["a fine day"] * 100
        assert time_artefacts(clock.folders, many)["onnx int8"].texts == texts


def test_a_manifest_of_before_is_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, MANIFEST)
    stored = json.loads((tmp_path / FILE_NAME).read_text())
    del stored["timing"]
    (tmp_path / FILE_NAME).write_text(json.dumps(stored))
    assert read_manifest(tmp_path).timing is None


@pytest.mark.filterwarnings("ignore")  # tracers warn of themselves
def test_a_real_export_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(module, "missing_packages", lambda name: [] if name == "openvino" else ["it"])
    tiny.save_source(tmp_path / "model", layers=1)
    (tmp_path / "texts.txt").write_text("\n".join(str(row["text"]) for row in tiny.rows(30)))
    texts = tmp_path / "texts.txt"
    found = artefacts.export_model(str(tmp_path / "model"), tmp_path / "out", AUTO, "fp32", texts=texts, timed=True)
    assert found.runtime == "openvino"
    assert found.timing is not None
    assert found.timing.ms_per_text > 0
    assert (found.timing.texts, found.timing.rounds, found.timing.others) == (30, 5, {})
    assert read_manifest(tmp_path / "out") == found  # hashes included
    assert Predictor(tmp_path / "out", threads=1).probabilities(["a fine day"]).shape == (1, 2)
