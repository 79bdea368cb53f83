"""The benchmark of many runtimes: who takes part, what they are given, and what is made of the times."""

from __future__ import annotations

import gzip
import json
import statistics
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from plankwise.core.errors import DataError, ModelError
from plankwise.data.batching.inputs import bare_tokenizer
from plankwise.data.text_files import TextFormat
from plankwise.data.truncation import Truncation, Windows
from plankwise.deploy.deployed import Deployed
from plankwise.deploy.manifest import Geometry, Manifest, geometry_of
from plankwise.evaluation.benchmark import fp32_baselines as baselines
from plankwise.evaluation.benchmark.fp32_baselines import FP32, NAIVE, Subject, fp32_baselines, given_models
from plankwise.evaluation.benchmark.measurements import Measurements, latency_lengths, share_of_ceiling
from plankwise.evaluation.benchmark.peak_gemm import SECONDS, arithmetic_of, gemm_ceilings, operations
from plankwise.evaluation.benchmark.peak_memory import peak_memory
from plankwise.evaluation.benchmark.stream_pool import StreamPool
from plankwise.evaluation.benchmark.system_load import Load, LoadMonitor, load_warnings, unsteady_warnings
from plankwise.evaluation.benchmark.workload import texts_of_file, texts_of_split, workload

TEXTS = [row["text"] for row in tiny.rows(11)]
MANIFEST = Manifest(
    runtime="torch",
    precision="fp32",
    model="model.safetensors",
    kind="single_label",
    labels=("bad", "good"),
    inputs=("input_ids", "attention_mask"),
    padding={"input_ids": 0, "attention_mask": 0},
    truncation=Truncation(max_length=16),
    positions=64,
    geometry=Geometry(linear_flops=100, attention_flops=10),
)


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)
        monkeypatch.setattr("time.sleep", lambda seconds: None)


class Timed:
    """A runtime whose calls take the given times, one after the other, and the last of them for ever."""

    name, streams, threads = "timed", 1, 1

    def __init__(self, clock: Clock, *seconds: float) -> None:
        self.clock, self.seconds, self.calls = clock, list(seconds), 0

    def __call__(self, inputs):
        self.clock.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1
        return np.zeros((len(inputs["input_ids"]), 2), dtype=np.float32)


def opened(runtime, **changes) -> Deployed:
    return Deployed(MANIFEST.model_copy(update=changes), bare_tokenizer(tiny.tokenizer()), runtime)


class TestFigures:
    def test_throughput_by_hand(self, monkeypatch):
        clock = Clock(monkeypatch)
        # One batch each: a warm-up of the shape, one of the turns, then three rounds.
        slow, quick = Timed(clock, 99, 99, 6.0, 8.0, 5.0), Timed(clock, 50, 50, 2.0, 2.0, 5.0)
        both = {"first": opened(slow), "second": opened(quick, precision="int8")}
        work = {name: workload(each.manifest, each.tokenizer, TEXTS[:4], 400) for name, each in both.items()}
        figures = Measurements(("first",), {"fp32": 1e-6, "int8": 4e-6}, rounds=3)
        told = figures.throughput(both, work)
        assert told["first"]["ms_per_text"] == 1000 * 6.0 / 4
        assert told["second"]["ms_per_text"] == 1000 * 2.0 / 4
        assert told["second"]["speedup"] == statistics.median([3.0, 4.0, 1.0]) == 3.0
        assert told["second"]["spread"] == [1.0, 4.0]
        assert told["second"]["over"]["first"] == {"speedup": 3.0, "spread": [1.0, 4.0]}
        assert told["first"]["over"] == {}
        assert figures.ratios == {"second on the texts": [3.0, 4.0, 1.0]}
        [(texts, tokens)] = work["second"].shapes
        per_second = texts * tokens * (100 + 10 * tokens) / 2.0
        assert told["second"]["percent_of_ceiling"] == pytest.approx(100 * per_second / 4e3)

    def test_latency_by_hand(self, monkeypatch):
        clock = Clock(monkeypatch)
        both = {"first": opened(Timed(clock, 4.0)), "second": opened(Timed(clock, *[1.0] * 11, *[2.0] * 99))}
        figures = Measurements((), {}, rounds=3)
        told = figures.latency(both, 32)
        assert told["first"]["p50_ms"] == told["first"]["p95_ms"] == 4000
        # 6 runs a turn, the first untimed: 5 of 1 s; then 4 of 1 s and 1 of 2 s; then 5 of 2 s
        assert told["second"]["p50_ms"] == 1000
        assert told["second"]["p95_ms"] == 2000
        assert told["second"]["speedup"] == statistics.median([4.0, 4.0, 2.0])
        assert told["second"]["percent_of_ceiling"] is None

    def test_lengths_are_those_that_all_can_take(self):
        long = MANIFEST.model_copy(update={"positions": 512})
        unknown = MANIFEST.model_copy(update={"positions": None, "truncation": Truncation(max_length=128)})
        assert latency_lengths([long]) == [32, 128, 512]
        assert latency_lengths([long, unknown]) == [32, 128]
        assert latency_lengths([long, MANIFEST, unknown]) == [32]


class TestCeiling:
    def test_operations_are_counted_with_padding(self):
        geometry = Geometry(linear_flops=100, attention_flops=10)
        assert operations(geometry, [(2, 3), (1, 5)]) == 6 * (100 + 30) + 5 * (100 + 50)

    def test_of_bert_base_are_those_of_the_literature(self):
        made = tiny.model(hidden_size=768, num_attention_heads=12, intermediate_size=3072, layers=1)
        geometry = geometry_of(made)
        assert 12 * geometry.linear_flops == 169_869_312
        assert 12 * geometry.attention_flops == 36_864

    def test_share_by_hand(self):
        told = share_of_ceiling(MANIFEST, [(1, 10)], 0.5, {"fp32": 8e-6})
        assert told["gops"] == pytest.approx(10 * 200 / 0.5 / 1e9)
        assert told["percent_of_ceiling"] == pytest.approx(50)

    @pytest.mark.parametrize("unknown", [{"geometry": None}, {"precision": "bf16"}])
    def test_share_is_open_where_something_is_unknown(self, unknown):
        told = share_of_ceiling(MANIFEST.model_copy(update=unknown), [(1, 10)], 0.5, {"fp32": 8.0})
        assert told == {"gops": None, "percent_of_ceiling": None}

    def test_precisions_are_held_against_the_arithmetic_they_allow(self):
        names = ("fp32", "fp16", "bf16", "int8", "int8-weights", "int4-weights")
        assert [arithmetic_of(name) for name in names] == ["fp32", "fp32", "bf16", "int8", "int8", "int8"]

    def test_is_measured(self, monkeypatch):
        monkeypatch.setattr("plankwise.evaluation.benchmark.peak_gemm.SIDES", (64,))
        found = gemm_ceilings(1)
        assert list(found) == ["fp32", "bf16", "int8"]
        assert found["fp32"] is not None
        assert found["fp32"] > 0

    def test_what_the_processor_only_emulates_is_not_measured(self, monkeypatch, caplog):
        caplog.set_level("INFO")
        asked = []
        monkeypatch.setattr("plankwise.core.hardware.cpu_flags", lambda: ["avx2"])
        monkeypatch.setattr("plankwise.evaluation.benchmark.peak_gemm._best", lambda name: asked.append(name) or 145.0)
        assert gemm_ceilings(1) == {"fp32": 145.0, "bf16": None, "int8": None}
        assert asked == ["fp32"]
        assert "no ceiling for bf16 and int8: this processor" in caplog.text

    @pytest.mark.parametrize(("gops", "expected"), [(100.0, 100.0), (10.0, 10.0), (1.0, None), (0.01, None)])
    def test_no_ceiling_takes_longer_than_its_bound(self, monkeypatch, gops, expected):
        clock = Clock(monkeypatch)

        def product(precision, side):
            def run():
                clock.now += 2 * side**3 / (gops * 1e9)

            return run

        monkeypatch.setattr("plankwise.evaluation.benchmark.peak_gemm._product", product)
        found = gemm_ceilings(1)
        assert found["fp32"] == (None if expected is None else pytest.approx(expected))
        assert clock.now <= len(found) * SECONDS


class TestLoad:
    QUIET = Load(seconds=10.0, cores=2, own=1.9, others=0.05, load_average=(2.0, 2.0))

    def test_a_quiet_machine_gives_no_warning(self):
        assert load_warnings(self.QUIET, threads=2) == []

    def test_others_are_named(self):
        [said] = load_warnings(replace(self.QUIET, others=0.4), threads=2)
        assert "other processes kept 0.40 of 2 cores busy" in said

    def test_others_on_cores_that_are_left_do_no_harm(self):
        wide = replace(self.QUIET, cores=8, others=5.5)
        assert load_warnings(wide, threads=2) == []
        assert load_warnings(wide, threads=4)

    def test_load_averages_have_to_do_where_nothing_else_is_known(self):
        unknown = replace(self.QUIET, others=None, load_average=(0.3, 2.0))
        assert load_warnings(unknown, threads=2) == []
        [said] = load_warnings(replace(unknown, load_average=(1.5, 2.0)), threads=2)
        assert "load average was 1.50" in said

    def test_what_is_watched_is_split_between_this_process_and_others(self, monkeypatch):
        clocks = iter([(100.0, 7.0, 50.0), (110.0, 22.0, 69.0)])
        monkeypatch.setattr("plankwise.evaluation.benchmark.system_load._clocks", lambda: next(clocks))
        with LoadMonitor() as watch:
            pass
        assert (watch.load.seconds, watch.load.own) == (10.0, 1.5)
        assert watch.load.others == pytest.approx((19.0 - 15.0) / 10)

    def test_clocks_that_stand_still_say_nothing_of_others(self, monkeypatch):
        clocks = iter([(0.0, 0.0, 50.0), (10.0, 1.0, 50.0)])
        monkeypatch.setattr("plankwise.evaluation.benchmark.system_load._clocks", lambda: next(clocks))
        with LoadMonitor() as watch:
            pass
        assert watch.load.others is None

    def test_this_process_is_not_taken_for_another(self):
        with LoadMonitor() as watch:
            end = time.process_time() + 0.2
            while time.process_time() < end:
                pass
        assert watch.load.own > 0

    def test_wide_rounds_are_named_and_one_outlier_is_not(self):
        told = unsteady_warnings({"steady": [2.0, 2.1, 2.0, 2.1, 9.0], "wild": [1.0, 2.0, 3.0, 4.0, 5.0]})
        [said] = told
        assert "wild (67%)" in said
        assert "steady" not in said
        assert unsteady_warnings({"steady": [2.0, 2.1, 2.0, 2.1, 9.0]}) == []


class TestCrew:
    def test_every_stream_meets_every_shape_once(self):
        seen: dict[int, list[tuple[int, int]]] = {}

        class Streams:
            name, streams, threads = "streams", 2, 2

            def __call__(self, inputs):
                seen.setdefault(threading.get_ident(), []).append(inputs["input_ids"].shape)

        batches = [{"input_ids": np.zeros(shape)} for shape in ((1, 3), (2, 3), (1, 3))]
        with StreamPool(Streams()) as crew:
            crew.warm_up(batches)
            assert len(seen) == 2
            assert all(sorted(shapes) == [(1, 3), (2, 3)] for shapes in seen.values())
            crew.run(batches)
        assert sum(map(len, seen.values())) == 4 + 3

    def test_a_fault_in_a_stream_is_raised(self):
        class Broken:
            name, streams, threads = "broken", 2, 2

            def __call__(self, inputs):
                raise ModelError("no")

        with StreamPool(Broken()) as crew, pytest.raises(ModelError, match="no"):
            crew.run([{"input_ids": np.zeros((1, 1))}])


class TestWorkload:
    def test_batches_keep_to_the_budget_and_to_every_token(self):
        tokenizer = bare_tokenizer(tiny.tokenizer())
        work = workload(MANIFEST, tokenizer, TEXTS, 40)
        assert all(texts * tokens <= 40 for texts, tokens in work.shapes)
        assert len(work.batches) > 1
        expected = sum(len(tokenizer.encode(text).ids) for text in TEXTS)
        assert sum(int(batch["attention_mask"].sum()) for batch in work.batches) == expected == sum(work.lengths)

    def test_without_a_budget_texts_stay_in_order(self):
        tokenizer = bare_tokenizer(tiny.tokenizer())
        work = workload(MANIFEST, tokenizer, TEXTS, None)
        lengths = [len(tokenizer.encode(text).ids) for text in TEXTS]
        assert work.shapes == [(8, max(lengths[:8])), (3, max(lengths[8:]))]
        assert work.batches[0]["attention_mask"].sum(axis=1).tolist() == lengths[:8]

    def test_windows_of_a_text_are_one_text(self):
        truncation = Truncation(max_length=6, windows=Windows())
        work = workload(
            MANIFEST.model_copy(update={"truncation": truncation}), bare_tokenizer(tiny.tokenizer()), ["tree " * 9], 400
        )
        assert work.texts == 1
        assert work.shapes == [(3, 6)]

    def test_texts_are_chosen_evenly(self, tmp_path):
        path = tmp_path / "texts.txt"
        path.write_text("\n".join([*"abcdef", "", " "]))
        assert texts_of_file(path, "text", 3) == ["a", "c", "f"]
        split = tiny.task(8, 8).splits["test"]
        assert texts_of_split(split, 100) == split["text"][:]

    def test_texts_are_read_as_tables_are(self, tmp_path):
        (tmp_path / "t.csv.gz").write_bytes(gzip.compress("n;text\n1;größer\n2;kühn\n".encode("cp1252")))
        assert texts_of_file(tmp_path / "t.csv.gz", "text", 3, TextFormat("cp1252", ";")) == ["größer", "kühn"]
        (tmp_path / "t.txt").write_text("größer\nkühn\n", encoding="utf-16")
        assert texts_of_file(tmp_path / "t.txt", "text", 3, TextFormat("utf-16")) == ["größer", "kühn"]
        with pytest.raises(DataError, match=r"t\.txt: it is not UTF-8, most likely utf-16; give encoding: utf-16"):
            texts_of_file(tmp_path / "t.txt", "text", 3)
        with pytest.raises(DataError, match="no encoding 'utf-99'; allowed: utf-8, cp1252"):
            TextFormat("utf-99")

    def test_files_that_do_not_do_are_refused(self, tmp_path):
        empty, table = tmp_path / "empty.txt", tmp_path / "table.csv"
        empty.write_text("\n \n")
        table.write_text("comment\nfine\n")
        with pytest.raises(DataError, match=r"empty\.txt holds no text"):
            texts_of_file(empty, "text", 3)
        with pytest.raises(DataError, match="no column 'text'; Allowed: comment"):
            texts_of_file(table, "text", 3)
        with pytest.raises(DataError, match="cannot read"):
            texts_of_file(tmp_path / "none.txt", "text", 3)


class TestWhoTakesPart:
    def test_the_same_model_twice_has_two_names(self):
        assert [each.name for each in given_models(["a", "b", "a"])] == ["a", "b", "a (2)"]

    def test_what_is_not_installed_is_left_out_in_one_line(self, tmp_path, monkeypatch, caplog):
        def refuse(folder, out, *, to, **how):
            if to == "onnx":
                raise ModelError("--to onnx needs onnxruntime")

        monkeypatch.setattr(baselines, "export", refuse)
        found = fp32_baselines(Subject("m", "m"), tmp_path, Truncation())
        assert [each.name for each in found] == [NAIVE, FP32["openvino"]]
        assert [each.naive for each in found] == [True, False]
        warned = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
        assert warned == ["no baseline in ONNX Runtime fp32: --to onnx needs onnxruntime"]

    def test_an_artefact_has_no_other_form(self, tmp_path):
        (tmp_path / "manifest.json").write_text("{}")
        assert fp32_baselines(Subject("m", str(tmp_path)), tmp_path, Truncation()) == []


def test_peak_memory_is_that_of_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell")
    folder = tiny.save_source(tmp_path / "source")
    found = peak_memory(str(folder), Truncation(max_length=16), list(TEXTS), 64, 1)
    assert found is not None
    assert 0 < found < 1 << 30
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(ModelError, match="could not be measured: exit code 1"):
        peak_memory(str(folder), Truncation(max_length=16), list(TEXTS), 64, 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    (place / "texts.txt").write_text("\n".join(TEXTS))
    tiny.save_source(place / "large")
    tiny.model(layers=1, labels=3).save_pretrained(place / "small")
    tiny.tokenizer().save_pretrained(place / "small")
    return place


class TestCommand:
    def test_times_any_number_of_models_whatever_their_labels(self, folders, monkeypatch, capsys):
        monkeypatch.setattr("plankwise.evaluation.benchmark.peak_gemm.SIDES", (64,))
        large, small = folders / "large", folders / "small"
        options = ["--texts", folders / "texts.txt", "--rounds", 3, "--threads", 1, "--no-baselines", "--no-memory"]
        assert tiny.call(monkeypatch, "bench", large, small, large, *options, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        names = [str(large), str(small), f"{large} (2)"]
        assert [each["name"] for each in told["models"]] == names
        assert list(told["throughput"]) == list(told["latency"]["32"]) == names
        assert set(told["latency"]) == {"32"}  # of 72 positions
        assert told["throughput"][str(large)]["speedup"] == 1.0
        assert told["throughput"][str(small)]["speedup"] > 0
        assert told["baseline"] == str(large)
        assert (told["threads"], told["rounds"], told["batching"]["texts"]) == (1, 3, len(TEXTS))
        assert told["batching"]["reading"]["max_length"] == 72
        assert all(each["size_bytes"] > 1000 for each in told["models"])
        assert set(told["load"]) == {"seconds", "cores", "own", "others", "load_average"}

    def test_texts_are_left_out_where_all_would_take_too_long(self, folders, monkeypatch, capsys):
        monkeypatch.setattr("plankwise.evaluation.benchmark.peak_gemm.SIDES", (64,))
        monkeypatch.setattr(
            "plankwise.evaluation.benchmark.benchmark.affordable", lambda opened, texts, passes, seconds: 8
        )
        options = ["--texts", folders / "texts.txt", "--rounds", 3, "--no-baselines", "--no-memory", "--json"]
        assert tiny.call(monkeypatch, "bench", folders / "small", *options) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["batching"]["texts"] == 8
        assert told["warnings"][0] == "timed on 8 of 11 texts: with all of them a few rounds take longer than 10 min"

    def test_shows_a_table(self, folders, monkeypatch, capsys):
        monkeypatch.setattr("plankwise.evaluation.benchmark.peak_gemm.SIDES", (64,))
        options = ["--texts", folders / "texts.txt", "--rounds", 3, "--no-baselines", "--no-memory"]
        monkeypatch.chdir(folders)
        assert tiny.call(monkeypatch, "bench", "large", "small", *options) == 0
        shown = capsys.readouterr().out
        assert "small" in shown
        assert "torch fp32" in shown
        assert "1.00× [1.00, 1.00]" in shown

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["./none", "--texts", "texts.txt"], "there is no model folder ./none"),
            (["large"], "give either --recipe, for the test texts of its task, or --texts FILE"),
            (["large", "--texts", "none.csv"], "cannot read none.csv"),
            (["large", "--texts", "texts.txt", "--rounds", "2"], None),
        ],
    )
    def test_wrong_input_ends_in_one_line(self, folders, monkeypatch, capsys, arguments, said):
        monkeypatch.chdir(folders)
        assert tiny.call(monkeypatch, "bench", *arguments, "--no-baselines", "--no-memory") == 2
        if said:
            assert capsys.readouterr().err.splitlines()[-1].startswith(f"plankwise: {said}")


@pytest.mark.filterwarnings("ignore")  # tracers warn of themselves
def test_fp32_baselines_are_timed_in_the_same_batches(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("plankwise.evaluation.benchmark.peak_gemm.SIDES", (64,))
    folder = tiny.save_source(tmp_path / "source", layers=1)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    options = ["--texts", tmp_path / "texts.txt", "--rounds", 3, "--threads", 2, "--budget", 64, "--no-memory"]
    assert tiny.call(monkeypatch, "bench", folder, *options, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    timed = told["throughput"]
    assert list(timed) == [str(folder), NAIVE, *FP32.values()]
    batches = {name: each["batches"] for name, each in timed.items()}
    assert batches.pop(NAIVE) == 2
    assert len(set(batches.values())) == 1
    assert {name: each["streams"] for name, each in timed.items()} == {
        str(folder): 1,
        NAIVE: 1,
        FP32["onnx"]: 2,
        FP32["openvino"]: 2,
    }
    assert set(timed[str(folder)]["over"]) == {NAIVE, *FP32.values()}
    assert NAIVE not in told["latency"]["32"]
