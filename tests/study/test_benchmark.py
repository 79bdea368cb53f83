from __future__ import annotations

import statistics
from itertools import count

import pytest
import torch

import tiny
from plankwise.core.runtime import fixed_threads
from plankwise.data.encoding import encode
from plankwise.data.reading import Reading
from plankwise.study.benchmark import Variant, benchmark, ratio, take_turns


class TestTurns:
    def test_alternate_after_one_warm_up(self):
        ran = []
        seconds = take_turns({name: lambda name=name: ran.append(name) for name in "abc"}, 3)
        assert "".join(ran) == "abc" + "abc" + "cba" + "abc"
        assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}

    def test_only_the_rounds_are_timed(self, monkeypatch):
        clock, step = count(), {"now": 0.0}
        runs = {"slow": 5.0, "quick": 2.0}

        def spend(name):
            step["now"] += runs[name] if next(clock) >= 2 else 1000.0  # the two warm-ups are dear

        monkeypatch.setattr("time.perf_counter", lambda: step["now"])
        seconds = take_turns({name: lambda name=name: spend(name) for name in runs}, 4)
        assert seconds == {"slow": [5.0] * 4, "quick": [2.0] * 4}


class TestRatio:
    def test_is_the_median_of_the_rounds_ratios(self):
        above, below = [4.0, 9.0, 100.0], [2.0, 3.0, 1.0]
        assert ratio(above, below) == {"speedup": 3.0, "spread": [2.0, 100.0]}
        assert statistics.median(above) / statistics.median(below) != 3.0

    def test_needs_as_many_rounds_of_both(self):
        with pytest.raises(ValueError):
            ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize("threads", [1, None])
def test_threads_are_fixed_for_a_while(threads):
    before = torch.get_num_threads()
    with fixed_threads(threads) as used:
        assert torch.get_num_threads() == used == (threads or before)
    assert torch.get_num_threads() == before


def test_both_models_are_measured_on_what_they_can_read():
    tokenizer, rows = tiny.tokenizer(), tiny.task(8, 12).splits["test"]
    examples = encode(rows, tokenizer, Reading(max_length=16))
    old, new = tiny.model(layers=2).train(), tiny.model(layers=1)
    told = benchmark(Variant(old, tokenizer, examples), Variant(new, tokenizer, examples), rounds=3, threads=1)
    assert set(told["latency"]) == {"32"}  # the tiny models have 72 positions
    assert set(told["latency"]["32"]) == {"baseline", "compressed", "speedup", "spread"}
    assert set(told["latency"]["32"]["baseline"]) == {"p50_ms", "p95_ms"}
    assert set(told["throughput"]) == {"baseline", "compressed", "speedup", "spread", "texts"}
    assert told["throughput"]["texts"] == 12
    assert (told["threads"], told["rounds"], told["device"]) == (1, 3, "cpu")
    for part in (told["latency"]["32"], told["throughput"]):
        assert part["spread"][0] <= part["speedup"] <= part["spread"][1]
