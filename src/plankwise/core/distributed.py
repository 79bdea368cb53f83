"""The processes of one run: which of them writes files, where they wait for each other, and how they fail together."""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from plankwise.core.errors import OutputError, PlankwiseError, TrainingError

Value = TypeVar("Value")


def process_state() -> PartialState:
    """Return Accelerate's state of this process: its rank, its device and the number of processes.

    The first call joins the process group; without an accelerator the group communicates over gloo on the CPU.
    """
    state = PartialState(cpu=not torch.accelerator.is_available())
    if state.num_processes > 1:
        _leave_group_at_exit()
    return state


@functools.cache
def _leave_group_at_exit() -> None:
    """End gloo's threads before the interpreter does: it would abort, and the exit code would be lost."""
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        atexit.register(_leave_group)


def _leave_group() -> None:
    if torch.distributed.is_initialized():  # Accelerate may have ended it
        torch.distributed.destroy_process_group()


def is_main_process() -> bool:
    """Return whether this process is the one that writes files."""
    return bool(process_state().is_main_process)


def process_count() -> int:
    """Return the number of processes of this run."""
    return int(process_state().num_processes)


def wait_for_everyone() -> None:
    """Block until all processes have reached this call."""
    process_state().wait_for_everyone()


def agree(value: str, what: str) -> None:
    """Check that every process holds the same `value`. All processes have to call this.

    Args:
        value: compared between processes.
        what: its name in the message, in the plural.

    Raises:
        TrainingError: in every process, if the values differ.
    """
    if len(set(_gathered(value))) > 1:
        raise TrainingError(f"{what} differ between processes")


def fail_together(fault: PlankwiseError | None) -> None:
    """Raise the error of one process in all of them. All processes have to call this.

    A process that raised alone would leave the others waiting at their next barrier until it times out.

    Args:
        fault: the error of this process, or `None`.

    Raises:
        PlankwiseError: the first error, by rank, if there is any.
    """
    for each in _gathered(fault):
        if each is not None:
            raise each


def on_main_process(action: Callable[[], object], place: Path) -> None:
    """Run `action`, which writes files, in the main process while all others wait. All processes have to call this.

    Args:
        action: what to do.
        place: what it writes to, for the message.

    Raises:
        PlankwiseError: in every process, if `action` raised one.
        OutputError: in every process, if `action` could not write.
    """
    fault: PlankwiseError | None = None
    if is_main_process():
        try:
            action()
        except PlankwiseError as error:
            fault = error
        except OSError as error:
            fault = OutputError(f"cannot write to {place}: {error.strerror or error}")
    fail_together(fault)


def _gathered(value: Value) -> list[Value]:
    process_state()  # Accelerate's default state would look for a GPU backend
    return list(gather_object([value]))
