"""The one tree of errors. Each message names the bad value, what is allowed, and where it came from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=str)


class PlankwiseError(Exception):
    """Base of every error that a user can cause; the command line prints it as one line and exits with `exit_code`."""

    exit_code = 2


class RecipeError(PlankwiseError):
    """A recipe, an override or a setting is wrong."""


class DataError(PlankwiseError):
    """A task's data is missing, malformed or unusable."""


class ModelError(PlankwiseError):
    """A checkpoint cannot be read, or its architecture is not supported."""


class MethodError(PlankwiseError):
    """A method cannot be applied to this model, or in this order."""


class TrainingError(PlankwiseError):
    """Training went wrong in a way that more steps cannot mend, such as a loss that is not a number."""


class CheckpointError(PlankwiseError):
    """A saved state is damaged or belongs to something else."""


class OutputError(PlankwiseError):
    """A place to write to is not usable."""


def suggest(name: object, allowed: Iterable[object]) -> str:
    """Say which of `allowed` is nearest to `name`, and list them all.

    Example:
        >>> suggest("modulse", ["modules", "start"])
        "did you mean 'modules'? Allowed: modules, start"
    """
    names = [str(each) for each in allowed]
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}"


def one_of(name: str, allowed: Sequence[Name], what: str) -> Name:
    """Give the one of `allowed` that is called `name`.

    Raises:
        ModelError: if there is none.
    """
    for each in allowed:
        if each == name:
            return each
    raise ModelError(f"no {what} '{name}'; {suggest(name, allowed)}")
