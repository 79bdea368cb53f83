"""What is made of the times: latency, throughput, speed-ups and the share of the peak GEMM, by hand."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

import tiny
from fake_runtime import MANIFEST, Clock, TimedRuntime, opened
from plankwise.data.batching.inputs import Text
from plankwise.data.truncation import Truncation
from plankwise.evaluation.benchmark.measurements import Measurements, latency_lengths, share_of_peak
from plankwise.evaluation.benchmark.workload import workload

TEXTS: list[Text] = [str(row["text"]) for row in tiny.rows(4)]


def test_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    # One batch each: a warm-up of the shape, the untimed turn, then three rounds.
    slow, quick = TimedRuntime(clock, 99, 99, 6.0, 8.0, 5.0), TimedRuntime(clock, 50, 50, 2.0, 2.0, 5.0)
    both = {"first": opened(slow), "second": opened(quick, precision="int8")}
    work = {name: workload(each.manifest, each.tokenizer, TEXTS, 400) for name, each in both.items()}
    figures = Measurements(("first",), {"fp32": 1e-6, "int8": 4e-6}, rounds=3)
    found = figures.throughput(both, work)
    assert found["first"]["ms_per_text"] == 1000 * 6.0 / 4
    assert found["second"]["ms_per_text"] == 1000 * 2.0 / 4
    assert found["second"]["texts_per_second"] == 4 / 2.0
    assert found["second"]["speedup"] == statistics.median([3.0, 4.0, 1.0]) == 3.0
    assert found["second"]["spread"] == [1.0, 4.0]
    assert found["second"]["over"]["first"] == {"speedup": 3.0, "spread": [1.0, 4.0]}
    assert found["first"]["over"] == {}
    assert figures.ratios == {"second on the texts": [3.0, 4.0, 1.0]}
    [(texts, tokens)] = work["second"].shapes
    per_second = texts * tokens * (100 + 10 * tokens) / 2.0
    assert found["second"]["percent_of_ceiling"] == pytest.approx(100 * per_second / 4e3)


def test_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    quick = TimedRuntime(clock, *[1.0] * 11, *[2.0] * 99)
    both = {"first": opened(TimedRuntime(clock, 4.0)), "second": opened(quick)}
    found = Measurements((), {}, rounds=3).latency(both, 32)
    assert found["first"]["p50_ms"] == found["first"]["p95_ms"] == 4000
    # 6 runs a turn, the first untimed: 5 of 1 s; then 4 of 1 s and 1 of 2 s; then 5 of 2 s
    assert found["second"]["p50_ms"] == 1000
    assert found["second"]["p95_ms"] == 2000
    assert found["second"]["speedup"] == statistics.median([4.0, 4.0, 2.0])
    assert found["second"]["percent_of_ceiling"] is None


@pytest.mark.parametrize(("threads", "rests"), [(1, {0.0}), (2, {0.02})])
def test_only_several_threads_need_a_rest(monkeypatch: pytest.MonkeyPatch, threads: int, rests: set[float]) -> None:
    clock, seen = Clock(monkeypatch), set[float]()
    monkeypatch.setattr("time.sleep", seen.add)
    Measurements((), {}, rounds=1).latency({"one": opened(TimedRuntime(clock, 1.0, threads=threads))}, 32)
    assert seen == rests


def test_lengths_are_those_that_all_models_have_positions_for() -> None:
    long = MANIFEST.model_copy(update={"positions": 512})
    unknown = MANIFEST.model_copy(update={"positions": None, "truncation": Truncation(max_length=128)})
    assert latency_lengths([long]) == [32, 128, 512]
    assert latency_lengths([long, unknown]) == [32, 128]
    assert latency_lengths([long, MANIFEST, unknown]) == [32]


def test_share_of_the_peak() -> None:
    found = share_of_peak(MANIFEST, [(1, 10)], 0.5, {"fp32": 8e-6})
    assert found == pytest.approx({"gops": 10 * 200 / 0.5 / 1e9, "percent_of_ceiling": 50})


@pytest.mark.parametrize("unknown", [{"geometry": None}, {"precision": "bf16"}])
def test_there_is_no_share_without_geometry_or_peak(unknown: dict[str, Any]) -> None:
    found = share_of_peak(MANIFEST.model_copy(update=unknown), [(1, 10)], 0.5, {"fp32": 8.0})
    assert found == {"gops": None, "percent_of_ceiling": None}
