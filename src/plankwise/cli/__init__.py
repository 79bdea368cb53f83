"""The command line: one verb for each part of the work. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Sequence

import typer

from plankwise.cli import data, deploying, experiments, looks  # importing them is what registers their verbs
from plankwise.cli.options import app
from plankwise.core.errors import OutputError, PlankwiseError, RecipeError

__all__ = ["app", "data", "deploying", "experiments", "looks", "main"]


DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # which no check beforehand can know of


def _refuse_broken(arguments: Sequence[str]) -> None:
    """Refuse arguments that are no text in UTF-8: names in them could be written to no record."""
    for each in arguments:
        try:
            each.encode()
        except UnicodeEncodeError:
            raise RecipeError(f"the argument '{each}' is not UTF-8 text; allowed: names in UTF-8") from None
        if "\0" in each:
            raise RecipeError(f"the argument {each!r} holds a zero byte")


def _printable(text: str) -> str:
    """Write what cannot be printed, or would break the line, as Python escapes it."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "accelerate", "datasets", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        _refuse_broken(sys.argv[1:])
        app()
    except PlankwiseError as error:
        typer.echo(f"plankwise: {_printable(str(error))}", err=True)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno is None:
            raise
        where = f"cannot use {error.filename}: " if error.filename else ""
        hint = "; a run goes on with --resume" if error.errno in DISK_FAULTS else ""
        typer.echo(f"plankwise: {_printable(where)}{error.strerror}{hint}", err=True)
        raise SystemExit(OutputError.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("plankwise: interrupted; a run goes on with --resume", err=True)
        raise SystemExit(130) from None
