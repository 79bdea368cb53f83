"""The record of a run: settings, machine, scores and costs. Reports read nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic

from plankwise.core.errors import CheckpointError
from plankwise.core.files import read_text, write_json
from plankwise.core.intervals import MISSING, format_interval
from plankwise.core.step_log import StepLog
from plankwise.core.texts_read import TextsRead as TextsRead

FILE_NAME = "record.json"
TORCH = "torch eager fp32"


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Cost(_Part):
    """What a model costs.

    Attributes:
        parameters: number of parameters.
        size_bytes: of the weights on disk.
        train_seconds: of training steps, and of what methods measure and solve in addition.
        compressed_bytes: of the weights on disk after lossless compression.
        linear_flops_per_token: operations of one token in the linear layers.
    """

    parameters: int
    size_bytes: int
    train_seconds: float
    compressed_bytes: int | None = None
    linear_flops_per_token: int | None = None


class Interval(_Part):
    """A value with the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return format_interval(self.value, self.low, self.high)


def format_optional(interval: Interval | None) -> str:
    """Format an interval, or a dash where a record has none."""
    return MISSING if interval is None else str(interval)


class Entry(_Part):
    """One trained model: the baseline, or the result of one step.

    Attributes:
        name: `baseline`, or the step's.
        settings: of the training or method, as plain values.
        scores: on `scores_split`.
        scores_split: name of a split.
        cost: of the model.
        train_seconds: of this step alone.
        development_scores: on the development split.
        details: what the step logged.
        texts_read: how much of each split the model read.
    """

    name: str
    settings: dict[str, Any]
    scores: dict[str, float]
    scores_split: str
    cost: Cost
    train_seconds: float
    development_scores: dict[str, float]
    details: pydantic.SerializeAsAny[StepLog] = StepLog()  # else pydantic would drop what a method's own log adds
    texts_read: dict[str, TextsRead] = {}


class Runtimes(_Part):
    """Runtime and precision in which each side of a speed-up was timed, such as `torch eager fp32`."""

    baseline: str
    compressed: str


class Final(_Part):
    """The last model compared with the baseline, both on the test split.

    `speedup` is the baseline's time divided by the compressed model's, in the runtimes that `runtimes` names (torch
    eager fp32 on both sides in records without it); `speedup_over` holds the same for the baseline in other runtimes.
    `texts_read` is how much of the split the last model read.
    """

    scores: dict[str, float]
    score_intervals: dict[str, Interval]
    baseline_intervals: dict[str, Interval]
    majority_scores: dict[str, float]
    cost: Cost
    retained_performance: dict[str, Interval | None]
    chance_corrected: dict[str, float | None]
    behaviour: dict[str, float]
    compression_ratio: float
    speedup: float
    benchmark: dict[str, Any]
    texts_read: TextsRead | None = None
    runtimes: Runtimes | None = None
    speedup_over: dict[str, float] = {}

    @property
    def timed_in(self) -> Runtimes:
        """Runtimes of both sides, also for records that do not name them."""
        return self.runtimes or Runtimes(baseline=TORCH, compressed=TORCH)


class Record(_Part):
    """One run."""

    name: str
    task: dict[str, Any]
    baseline: Entry | None = None
    steps: list[Entry] = []
    final: Final | None = None
    environment: dict[str, Any]
    data_hashes: dict[str, str]
    seed: int
    recipe: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write `record.json` into `folder`, atomically."""
        write_json(folder / FILE_NAME, self.model_dump(mode="json"))


def read_record(folder: Path) -> Record:
    """Read `record.json` from a run's folder.

    Raises:
        CheckpointError: if it is missing or not a record.
    """
    path = folder / FILE_NAME if folder.is_dir() else folder
    try:
        return Record.model_validate_json(read_text(path))
    except FileNotFoundError:
        raise CheckpointError(f"there is no run in {folder}: {path} is missing") from None
    except (OSError, UnicodeDecodeError, pydantic.ValidationError) as error:
        first = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(f"{path} is not a record of a run: {first}") from None
