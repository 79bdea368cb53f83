from __future__ import annotations

import pytest
import torch

import tiny
from plankwise.core.hardware import fixed_threads
from plankwise.data.batching.examples import encode
from plankwise.data.truncation import Truncation
from plankwise.evaluation.benchmark.torch_pair import Variant, benchmark


@pytest.mark.parametrize("threads", [1, None])
def test_threads_are_fixed_for_a_while(threads):
    before = torch.get_num_threads()
    with fixed_threads(threads) as used:
        assert torch.get_num_threads() == used == (threads or before)
    assert torch.get_num_threads() == before


def test_texts_are_left_out_where_they_would_take_too_long(monkeypatch, caplog):
    monkeypatch.setattr("plankwise.evaluation.benchmark.torch_pair.LONGEST_S", 0.0)
    tokenizer, rows = tiny.tokenizer(), tiny.task(8, 12).splits["test"]
    one = Variant(tiny.model(layers=1), tokenizer, encode(rows, tokenizer, Truncation(max_length=16)))
    assert benchmark(one, one, rounds=3, threads=1)["throughput"]["texts"] == 8
    assert "timed on 8 texts: more take longer than 0 s" in caplog.messages


def test_both_models_are_measured_on_what_they_can_read():
    tokenizer, rows = tiny.tokenizer(), tiny.task(8, 12).splits["test"]
    examples = encode(rows, tokenizer, Truncation(max_length=16))
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
