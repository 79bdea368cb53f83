"""A model in memory whose answers follow from the tokens by hand, as slow or as broken as a test wants it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tiny
from plankwise.data.batching.inputs import bare_tokenizer
from plankwise.data.truncation import Truncation
from plankwise.deploy.deployed import Deployed
from plankwise.deploy.manifest import Manifest


class Fake:
    """A runtime whose first logit is the mean token id over ten and whose second is a tenth of the length."""

    name, threads = "fake", 1

    def __init__(self, streams: int = 2, seconds: float = 0.0, fails_at: int | None = None) -> None:
        self.streams, self._seconds, self._fails_at = streams, seconds, fails_at
        self.shapes: list[tuple[int, ...]] = []
        self._lock = threading.Lock()

    def __call__(self, inputs: Any) -> Any:
        with self._lock:
            self.shapes.append(inputs["input_ids"].shape)
            number = len(self.shapes)
        time.sleep(self._seconds)
        if number == self._fails_at:
            raise RuntimeError("the runtime broke")
        mask = inputs["attention_mask"]
        lengths = mask.sum(axis=1)
        return np.stack([(inputs["input_ids"] * mask).sum(axis=1) / lengths / 10, lengths / 10], axis=1)


@pytest.fixture
def fake() -> Callable[..., Deployed]:
    def make(runtime: Any = None, truncation: Truncation | None = None, kind: str = "single_label") -> Deployed:
        manifest = Manifest(
            runtime="torch",
            precision="fp32",
            model="none",
            kind=kind,
            labels=("good", "bad"),
            inputs=("input_ids", "attention_mask"),
            padding={"input_ids": 0, "attention_mask": 0},
            truncation=truncation or Truncation(max_length=64),
        )
        return Deployed(manifest, bare_tokenizer(tiny.tokenizer()), runtime or Fake())

    make.runtime = Fake  # type: ignore[attr-defined]
    return make
