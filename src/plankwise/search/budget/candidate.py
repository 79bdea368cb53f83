"""A candidate of a search, and what was measured of it."""

from __future__ import annotations

import json
from typing import Any

import pydantic

from plankwise.core.records import Interval
from plankwise.core.seeds import mix_seed
from plankwise.deploy.manifest import RuntimeName


class _Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Candidate(_Frozen):
    """One way to make the model fast: the steps that compress it, and how the result is run.

    Attributes:
        name: unique in a search, as tables show it.
        rung: of the ladder, or of the search that proposed it.
        steps: of a recipe, as plain values; empty for the original model.
        runtime: library that runs the artefact.
        precision: of the artefact.
    """

    name: str
    rung: str
    steps: tuple[dict[str, Any], ...] = ()
    runtime: RuntimeName
    precision: str

    @property
    def model_key(self) -> str:
        """A name for the folder of the model; candidates that differ in their runtime alone share it."""
        return model_key(self.steps)


def model_key(steps: tuple[dict[str, Any], ...]) -> str:
    """Return a name for the folder of the model that these steps make."""
    return f"{mix_seed(json.dumps(steps, sort_keys=True)):016x}" if steps else "original"


class Outcome(_Frozen):
    """What was measured of a candidate, on development rows and on this machine.

    Attributes:
        candidate: which one.
        scores: of the artefact on development, by metric.
        retained: the first metric divided by the original's.
        agreement: share of development rows with the original's labels.
        speedup: time of the reference divided by the artefact's: the median over rounds, and its interval.
        reference: what it is compared with: the original in an optimised runtime in fp32.
        ms_per_text: median over the rounds.
        size_bytes: of the artefact's folder.
        parameters: of the model.
        train_seconds: of its steps.
        seconds: that the search spent on it.
        caveats: limits of what was measured, one sentence each.
        certifies: whether the answers are the same in any batch, so that what is measured here holds.
    """

    candidate: Candidate
    scores: dict[str, float]
    retained: Interval
    agreement: float
    speedup: Interval
    reference: str
    ms_per_text: float
    size_bytes: int
    parameters: int
    train_seconds: float
    seconds: float
    caveats: tuple[str, ...] = ()
    certifies: bool = True


class Failure(_Frozen):
    """A candidate that could not be made or measured, and why."""

    candidate: Candidate
    fault: str
    seconds: float
