"""The record of a run: what was done, with which settings, on what machine, what it gave. Reports read only this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic

from plankwise.core.errors import CheckpointError
from plankwise.core.files import read_text, write_json
from plankwise.core.step_log import StepLog
from plankwise.core.texts_read import TextsRead as TextsRead

FILE_NAME = "record.json"
TORCH = "torch eager fp32"


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Cost(_Part):
    """What a model costs.

    Parameters are a count, sizes are those of its weights on disk, plain and compressed, operations those of one token
    in the linear layers. The seconds to get it are of training steps and of what methods measure and solve beside them.
    """

    parameters: int
    size_bytes: int
    train_seconds: float
    compressed_bytes: int | None = None
    linear_flops_per_token: int | None = None


class Interval(_Part):
    """A value with the two ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Entry(_Part):
    """One trained model: the baseline, or what one step made.

    `scores` are from the split named beside them; `texts_read` says of each split that was read whole how much of its
    texts the model was given.
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
    """In which runtime and precision each side of a speed-up was timed, as in `torch eager fp32`."""

    baseline: str
    compressed: str


class Final(_Part):
    """The last model against the baseline, both on the test split.

    `speedup` is the baseline's time over the compressed model's, in the runtimes that `runtimes` names (torch eager
    fp32 on both sides where a record does not say); `speedup_over` holds that over the baseline in other runtimes.
    `texts_read` is what the last model was given.
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
        """In what each side was timed, of records that do not say so too."""
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
        """Write `record.json` into `folder` in one step."""
        write_json(folder / FILE_NAME, self.model_dump(mode="json"))


def read_record(folder: Path) -> Record:
    """Read `record.json` from a run's folder.

    Raises:
        CheckpointError: if it is not there or not a record.
    """
    path = folder / FILE_NAME if folder.is_dir() else folder
    try:
        return Record.model_validate_json(read_text(path))
    except FileNotFoundError:
        raise CheckpointError(f"there is no run in {folder}: {path} is missing") from None
    except (OSError, UnicodeDecodeError, pydantic.ValidationError) as error:
        first = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(f"{path} is not a record of a run: {first}") from None
