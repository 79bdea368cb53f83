"""All errors of the library. A message names the bad value, where it came from, and what is allowed."""

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
    """The data of a task is missing, malformed or unusable."""


class ModelError(PlankwiseError):
    """A checkpoint cannot be read, or its architecture is not supported."""


class MethodError(PlankwiseError):
    """A method cannot be applied to this model, or in this order."""


class TrainingError(PlankwiseError):
    """Training failed in a way that more steps cannot repair, such as a loss that is not a number."""


class CheckpointError(PlankwiseError):
    """A saved state is damaged or belongs to another run."""


class OutputError(PlankwiseError):
    """An output path cannot be written to."""


def suggest(name: object, allowed: Iterable[object]) -> str:
    """Return a hint that names the closest of the allowed values and lists them all.

    Example:
        >>> suggest("modulse", ["modules", "start"])
        "did you mean 'modules'? Allowed: modules, start"
    """
    names = [str(each) for each in allowed]
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}"


def one_of(name: str, allowed: Sequence[Name], what: str) -> Name:
    """Return `name` as one of the allowed values.

    Args:
        name: given by the user.
        allowed: all values.
        what: name of the setting in the message.

    Raises:
        ModelError: if it is not allowed.
    """
    for each in allowed:
        if each == name:
            return each
    raise ModelError(f"no {what} '{name}'; {suggest(name, allowed)}")
