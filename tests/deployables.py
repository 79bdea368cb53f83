"""What the tests of `deploy/` predict with: a model in memory with known answers, and artefacts that are made once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

import tiny
from plankwise.data.batching.inputs import Inputs, bare_tokenizer
from plankwise.data.truncation import Truncation
from plankwise.deploy.deployed import Deployed
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import Manifest

TEXTS = [str(row["text"]) for row in tiny.rows(24, 5)]


class FakeRuntime:
    """Its first logit is the mean token id over ten, its second a tenth of the length; as slow or broken as wanted."""

    name, threads = "fake", 1

    def __init__(self, streams: int = 2, seconds: float = 0.0, fails_at: int | None = None) -> None:
        self.streams, self._seconds, self._fails_at = streams, seconds, fails_at
        self.shapes: list[tuple[int, ...]] = []
        self._lock = threading.Lock()

    def __call__(self, inputs: Inputs) -> Any:
        with self._lock:
            self.shapes.append(inputs["input_ids"].shape)
            number = len(self.shapes)
        time.sleep(self._seconds)
        if number == self._fails_at:
            raise RuntimeError("the runtime broke")
        mask = inputs["attention_mask"]
        lengths = mask.sum(axis=1)
        return np.stack([(inputs["input_ids"] * mask).sum(axis=1) / lengths / 10, lengths / 10], axis=1)


def fake_model(
    runtime: FakeRuntime | None = None, truncation: Truncation | None = None, kind: str = "single_label"
) -> Deployed:
    """Make a model of two labels that reads up to 64 tokens."""
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
    return Deployed(manifest, bare_tokenizer(tiny.tokenizer()), runtime or FakeRuntime())


class Artefacts:
    """Exports of one model, each made when it is first used; tests must not change them."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self._folder = source, folder

    def __call__(self, runtime: str, precision: str, portable: bool | None = None) -> Path:
        out = self._folder / f"{runtime}-{precision}-{portable}"
        if not out.exists():
            export(self.source, out, to=runtime, precision=precision, calibration=TEXTS, texts=TEXTS, portable=portable)
        return out
