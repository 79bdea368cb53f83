"""Runtimes whose calls take a known time, for tests of timing; and the clock that they advance."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import tiny
from plankwise.data.batching.inputs import Inputs, bare_tokenizer
from plankwise.data.truncation import Truncation
from plankwise.deploy.deployed import Deployed
from plankwise.deploy.manifest import Geometry, Manifest
from plankwise.deploy.runtimes import Logits

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
    """Time that passes only when a test advances it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)


class TimedRuntime:
    """A runtime whose calls take the given seconds, one after the other; the last figure holds for all further ones."""

    def __init__(self, clock: Clock, *seconds: float, threads: int = 1) -> None:
        self.name, self.streams, self.threads = "timed", 1, threads
        self.clock, self.seconds, self.calls = clock, list(seconds), 0

    def __call__(self, inputs: Inputs) -> Logits:
        self.clock.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1
        return np.zeros((len(inputs["input_ids"]), 2), dtype=np.float32)


def opened(timed: TimedRuntime, /, **changes: Any) -> Deployed:
    return Deployed(MANIFEST.model_copy(update=changes), bare_tokenizer(tiny.tokenizer()), timed)
