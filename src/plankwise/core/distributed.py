"""The processes of a run: which one writes, where all of them meet, and how a fault of one becomes a fault of all."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from plankwise.core.errors import PlankwiseError, TrainingError


def is_main_process() -> bool:
    """Tell whether this process is the one that writes files."""
    return bool(processes().is_main_process)


def process_count() -> int:
    """Count the processes of this run."""
    return int(processes().num_processes)


def wait_for_everyone() -> None:
    """Let all processes meet here."""
    processes().wait_for_everyone()


def processes() -> PartialState:
    """Describe this process and those beside it; without an accelerator they talk over the CPU."""
    return PartialState(cpu=not torch.accelerator.is_available())


def agree(value: str, what: str) -> None:
    """Make sure that every process holds the same `value`.

    Raises:
        TrainingError: if they differ; the model would be trained on contradictions.
    """
    values = gather_object([value])
    if len(set(values)) > 1:
        raise TrainingError(f"{what} differ between processes")


def fail_together(fault: PlankwiseError | None) -> None:
    """Raise the fault that one process met in all of them, so that none waits for another that has gone."""
    for each in gather_object([fault]):
        if each is not None:
            raise each
