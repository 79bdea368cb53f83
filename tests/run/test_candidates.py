"""The runtime and precision of an export: named, known of a processor, or measured; and what it says of its speed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedConfig, PreTrainedModel

import tiny
from fake_runtime import MANIFEST, Clock, TimedRuntime, opened
from plankwise.core.errors import ModelError
from plankwise.data.batching.inputs import Text
from plankwise.deploy.deployed import Deployed
from plankwise.deploy.export.export import PACKAGES, check_request
from plankwise.deploy.manifest import DYNAMIC, FILE_NAME, Manifest, Parity, Timing, read_manifest, write_manifest
from plankwise.encoder.checkpoint import load_config, save
from plankwise.encoder.fake_quantized import FakeQuantized
from plankwise.encoder.quantized import is_quantized
from plankwise.evaluation.benchmark.artefact_timing import time_artefacts
from plankwise.run import artefacts
from plankwise.run import candidates as module
from plankwise.run.artefacts import ExportRequest, export_model
from plankwise.run.candidates import AUTO, PROCESSORS, Candidate, candidates, references, this_processor

ALL = ["openvino int8", "onnx int8", "openvino fp32", "onnx fp32"]
EXPORTED = MANIFEST.model_copy(
    update={"parity": Parity(texts=1, source="", logit_error=0, probability_change=0, agreement=1, tolerance=1)}
)
Installed = Callable[..., None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Pretends that these runtimes are installed, whatever is; at first all of them."""

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
    def test_are_what_was_left_open(
        self, installed: Installed, to: str, precision: str, processor: str | None, expected: list[str]
    ) -> None:
        assert [str(each) for each in candidates(to, precision, processor)] == expected

    def test_never_depend_on_the_batch_unless_named(self, installed: Installed) -> None:
        found = {
            each.precision
            for kind in (None, *PROCESSORS)
            for to in (AUTO, "onnx")
            for each in candidates(to, AUTO, kind)
        }
        assert found == {"int8", "fp32"}
        assert [str(each) for each in candidates(AUTO, DYNAMIC)] == ["onnx int8-dynamic"]

    def test_are_installed(self, installed: Installed) -> None:
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
    def test_have_names(self, arguments: tuple[str, ...], said: str) -> None:
        with pytest.raises(ModelError, match=said):
            candidates(*arguments)

    def test_are_compared_with_fp32_and_the_other_runtime(self, installed: Installed) -> None:
        def against(*wanted: tuple[Any, str]) -> list[str]:
            return [str(each) for each in references([Candidate(*each) for each in wanted])]

        assert against(("openvino", "int8")) == ["openvino fp32", "onnx int8"]
        assert against(("openvino", "bf16")) == ["openvino fp32"]
        assert against(("onnx", "fp32")) == ["openvino fp32"]
        assert against(("openvino", "int8"), ("onnx", "int8")) == ["openvino fp32", "onnx fp32"]
        installed("openvino")
        assert against(("openvino", "int8")) == ["openvino fp32"]


def timing(milliseconds: float, over: float | None = None) -> Timing:
    spread = None if over is None else (over, over)
    return Timing(ms_per_text=milliseconds, over_fp32=over, spread=spread, others={}, texts=9, rounds=5, threads=2)


@dataclass
class Made:
    """Exports and timings that take no time.

    Attributes:
        times: measured, by runtime and precision.
        faults: raised instead of an export.
        asked: exports that were asked for, in order.
        sources: configurations of the models that were exported.
        timed: artefacts that were timed.
    """

    times: dict[str, Timing] = field(default_factory=dict)
    faults: dict[str, ModelError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sources: list[PreTrainedConfig] = field(default_factory=list)
    timed: list[str] = field(default_factory=list)

    def export(self, model: str | Path, out: Path, *, to: Any, precision: str, **options: Any) -> Manifest:
        name = f"{to} {precision}"
        self.asked.append(name)
        if name in self.faults:
            raise self.faults[name]
        self.sources.append(load_config(str(model)))
        out.mkdir(parents=True)
        (out / "model").write_text(name)
        written = EXPORTED.model_copy(update={"runtime": to, "precision": precision})
        write_manifest(out, written)
        return written

    def measure(self, folders: Mapping[str, Path], texts: Sequence[Text]) -> dict[str, Timing]:
        self.timed = list(folders)
        assert all((folder / "model").read_text() == name for name, folder in folders.items())
        return {name: self.times.get(name, timing(50.0)) for name in folders}

    def model(self, to: str = AUTO, precision: str = AUTO, **options: Any) -> Manifest:
        """Export `model` to `out`, with the texts of `texts.txt`."""
        asked = {"texts": Path("texts.txt"), **options}
        request = ExportRequest(model="model", out=Path("out"), to=to, precision=precision, **asked)
        return export_model(request, exporter=self.export, timer=self.measure)


@pytest.fixture
def made(installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Exports in a folder that holds a model and texts; `plankwise export` makes them too."""
    made = Made()
    quick = partial(export_model, exporter=made.export, timer=made.measure)
    monkeypatch.setattr(artefacts, "export_model", quick)  # which the command imports when it runs
    monkeypatch.chdir(tmp_path)
    tiny.save_source(tmp_path / "model", layers=1)
    (tmp_path / "texts.txt").write_text("a fine day\n")
    return made


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
    def test_the_fastest_is_written(self, made: Made) -> None:
        made.times = AVX2
        found = made.model()
        assert made.asked == made.timed == ALL
        assert (found.runtime, found.precision, found.timing) == ("onnx", "int8", AVX2["onnx int8"])
        assert read_manifest(Path("out")) == found
        assert {each.name for each in Path("out").iterdir()} == {"model", FILE_NAME, "README.md"}
        assert Path("out/model").read_text() == "onnx int8"

    def test_what_fails_is_left_out_and_named(self, made: Made, caplog: pytest.LogCaptureFixture) -> None:
        made.faults["onnx int8"] = ModelError("changes a probability by 0.9\nand more")
        made.times = AVX2
        assert made.model().precision == "fp32"
        assert "onnx int8 is left out: changes a probability by 0.9" in caplog.messages

    def test_where_all_fail_the_first_fault_is_raised_and_nothing_written(self, made: Made) -> None:
        made.faults = {name: ModelError(f"no {name}") for name in ALL}
        with pytest.raises(ModelError, match="no openvino int8"):
            made.model()
        assert {each.name for each in Path().iterdir()} == {"model", "texts.txt"}

    def test_a_named_candidate_is_exported_even_if_it_is_slow(
        self,
        made: Made,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        made.times = AVX2
        options = ["--to", "openvino", "--precision", "int8", "--texts", "texts.txt"]
        assert tiny.call(monkeypatch, "export", "model", "--out", "out", *options) == 0
        assert made.asked == ["openvino int8", "openvino fp32", "onnx int8"]
        assert read_manifest(Path("out")).precision == "int8"
        [said] = [each for each in caplog.messages if "slower" in each]
        assert said == (
            "openvino int8 is slower than fp32 here: 24 ms a text against 17.7; "
            "faster: onnx int8 13.2, openvino fp32 17.7"
        )
        shown = capsys.readouterr().out
        assert "here 24 ms a text, 0.74× [0.74, 0.74] as fast as fp32 in the same runtime; 9 texts, 5 rounds" in shown

    def test_a_fault_of_the_only_one_is_raised_before_others_are_made(self, made: Made) -> None:
        made.faults["openvino int8"] = ModelError("changes a probability by 0.9")
        with pytest.raises(ModelError, match=r"by 0\.9"):
            made.model("openvino", "int8", timed=True)
        assert made.asked == ["openvino int8"]

    def test_a_quantized_model_has_int8_alone(self, made: Made) -> None:
        save(quantized(tiny.model(layers=1)), tiny.tokenizer(), "model")
        made.times = {"openvino fp32": timing(1.0)}
        assert made.model().precision == "int8"
        assert made.timed == ["openvino int8", "onnx int8", "openvino fp32", "onnx fp32"]
        assert [is_quantized(each) for each in made.sources] == [True, True, False, False]
        assert {each.name for each in Path("out").iterdir()} == {"model", FILE_NAME, "README.md"}

    @pytest.mark.parametrize(("processor", "expected"), [("vnni", "openvino int8"), ("avx2", "onnx int8")])
    def test_for_another_processor_nothing_is_measured(
        self, made: Made, caplog: pytest.LogCaptureFixture, processor: str, expected: str
    ) -> None:
        found = made.model(processor=processor)
        assert (f"{found.runtime} {found.precision}", made.asked, made.timed) == (expected, [expected], [])
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
    def test_what_leaves_no_choice_is_refused_at_once(
        self,
        made: Made,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        options: list[str],
        said: str,
    ) -> None:
        assert tiny.call(monkeypatch, "export", "model", "--out", "out", *options) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"plankwise: {said}")
        assert made.asked == []

    def test_without_texts_or_with_no_timing_a_named_candidate_is_exported_alone(
        self, made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        named = ["--to", "onnx", "--precision", "int8"]
        assert tiny.call(monkeypatch, "export", "model", "--out", "one", *named) == 0
        assert "onnx int8 is not timed: there are no texts; give --recipe or --texts" in caplog.messages
        assert (
            tiny.call(monkeypatch, "export", "model", "--out", "two", *named, "--texts", "texts.txt", "--no-timing")
            == 0
        )
        assert tiny.call(monkeypatch, "export", "model", "--out", "three", "--precision", "fp32") == 0
        assert (made.asked, made.timed) == (["onnx int8", "onnx int8", "openvino fp32"], [])


SECONDS = {"openvino int8": 0.024, "openvino fp32": 0.018, "onnx int8": 0.012}  # of a batch
FOLDERS = {name: Path(name) for name in SECONDS}


class TestTiming:
    def opener(self, clock: Clock, slower: float = 1.0) -> Callable[[Path, str], Deployed]:
        def open_artefact(folder: Path, mode: str) -> Deployed:
            assert mode == "throughput"
            runtime, precision = folder.name.split()
            return opened(
                TimedRuntime(clock, slower * SECONDS[folder.name], threads=2), runtime=runtime, precision=precision
            )

        return open_artefact

    def test_is_compared_with_fp32_of_its_own_runtime(self, monkeypatch: pytest.MonkeyPatch) -> None:
        opener = self.opener(Clock(monkeypatch))
        found = time_artefacts(FOLDERS, ["a fine day"] * 4, opener=opener)  # one batch
        slow = found["openvino int8"]
        assert slow.ms_per_text == pytest.approx(24.0 / 4)
        assert slow.over_fp32 == pytest.approx(18 / 24)
        assert slow.spread == pytest.approx((18 / 24, 18 / 24))
        assert slow.others == {"openvino fp32": pytest.approx(18 / 4), "onnx int8": pytest.approx(12 / 4)}
        assert (slow.texts, slow.rounds, slow.threads) == (4, 5, 2)
        assert found["onnx int8"].over_fp32 is None
        assert found["openvino fp32"].over_fp32 is None

    @pytest.mark.parametrize(("slower", "texts"), [(1.0, 64), (7.9, 10), (1000.0, 8)])
    def test_texts_are_as_many_as_there_is_time_for(
        self, monkeypatch: pytest.MonkeyPatch, slower: float, texts: int
    ) -> None:
        opener = self.opener(Clock(monkeypatch), slower * 4)  # four texts are one batch
        assert time_artefacts(FOLDERS, ["a fine day"] * 100, opener=opener)["onnx int8"].texts == texts


def test_a_manifest_of_before_is_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, EXPORTED)
    stored = json.loads((tmp_path / FILE_NAME).read_text())
    del stored["timing"]
    (tmp_path / FILE_NAME).write_text(json.dumps(stored))
    assert read_manifest(tmp_path).timing is None


@pytest.mark.parametrize(
    ("machine", "saturating", "kind"),
    [("x86_64", True, "avx2"), ("AMD64", False, "vnni"), ("aarch64", True, "arm"), ("arm64", False, "arm")],
)
def test_the_kind_of_this_processor(monkeypatch: pytest.MonkeyPatch, machine: str, saturating: bool, kind: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(module, "saturates", lambda: saturating)
    assert this_processor() == kind
    assert kind in PROCESSORS
