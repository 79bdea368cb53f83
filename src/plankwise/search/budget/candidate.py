"""A candidate of a search, and what was measured of it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pydantic

from plankwise.core.records import Interval
from plankwise.core.seeds import mix_seed
from plankwise.deploy.export.export import missing_packages
from plankwise.deploy.manifest import RuntimeName

Steps = tuple[dict[str, Any], ...]  # of a recipe, as plain values
Deployment = tuple[RuntimeName, str]  # runtime, precision
RUNTIMES: tuple[RuntimeName, ...] = ("openvino", "onnx")  # the faster one on most processors first
NOTHING_INSTALLED = "neither OpenVINO nor ONNX Runtime is installed; pip install 'plankwise[openvino,onnx]'"


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
    steps: Steps = ()
    runtime: RuntimeName
    precision: str

    @property
    def model_key(self) -> str:
        """A name for the folder of the model; candidates that differ in their runtime alone share it."""
        return model_key(self.steps)


def model_key(steps: Steps) -> str:
    """Return a name for the folder of the model that these steps make."""
    return f"{mix_seed(json.dumps(steps, sort_keys=True)):016x}" if steps else "original"


def shared_steps(one: Steps, other: Steps) -> int:
    """Count the steps that two candidates have in common, from the first on."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def installed_deployments() -> tuple[Deployment, ...]:
    """Return int8 and fp32 in every runtime that is installed; empty if there is none."""
    installed = [runtime for runtime in RUNTIMES if not missing_packages(runtime)]
    return tuple((runtime, precision) for precision in ("int8", "fp32") for runtime in installed)


class Outcome(_Frozen):
    """What was measured of a candidate, on development rows and on this machine.

    Attributes:
        candidate: which one.
        scores: of the artefact on development, by metric.
        retained: the first metric divided by the original's.
        agreement: share of development rows with the original's labels; of scores, the correlation of their ranks.
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
