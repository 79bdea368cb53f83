"""The user's files, made ready for a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from plankwise.data.truncation import Truncation
from plankwise.search.shrink.request import ShrinkRequest


@dataclass(frozen=True)
class Prepared:
    agreement: bool
    labelled_train: bool
    measured: str
    described: Mapping[str, Any]
    notes: tuple[str, ...]
    hashes: Mapping[str, str]

    def write(self, folder: Path, truncation: Truncation) -> dict[str, Any]:
        raise NotImplementedError


def prepare(request: ShrinkRequest, config: PreTrainedConfig) -> Prepared:
    raise NotImplementedError
