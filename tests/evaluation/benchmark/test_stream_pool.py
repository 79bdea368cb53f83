"""The threads that call a runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from plankwise.core.errors import ModelError
from plankwise.data.batching.inputs import Inputs
from plankwise.deploy.runtimes import Logits
from plankwise.evaluation.benchmark.stream_pool import StreamPool


class TwoStreams:
    name, streams, threads = "streams", 2, 2

    def __init__(self, call: Callable[[Inputs], None]) -> None:
        self._call = call

    def __call__(self, inputs: Inputs) -> Logits:
        self._call(inputs)
        return np.zeros((len(inputs["input_ids"]), 2), dtype=np.float32)


def batch(texts: int, tokens: int) -> Inputs:
    return {"input_ids": np.zeros((texts, tokens), dtype=np.int64)}


def test_every_stream_meets_every_shape_once() -> None:
    seen: dict[int, list[tuple[int, ...]]] = {}

    def note(inputs: Inputs) -> None:
        seen.setdefault(threading.get_ident(), []).append(inputs["input_ids"].shape)

    batches = [batch(1, 3), batch(2, 3), batch(1, 3)]
    with StreamPool(TwoStreams(note)) as pool:
        pool.warm_up(batches)
        assert [sorted(shapes) for shapes in seen.values()] == [[(1, 3), (2, 3)]] * 2
        pool.run(batches)
    assert sum(map(len, seen.values())) == 4 + 3


def test_a_fault_in_a_stream_is_raised() -> None:
    def refuse(inputs: Inputs) -> None:
        raise ModelError("no")

    with StreamPool(TwoStreams(refuse)) as pool, pytest.raises(ModelError, match="no"):
        pool.run([batch(1, 1)])
