"""The command line: one verb per command. Heavy imports wait until a verb needs them, so that `--help` is quick."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from plankwise.cli import (  # imports register the verbs
    comparing,
    data,
    deploying,
    experiments,
    inspect,
    reviewing,
    searching,
    shrinking,
)
from plankwise.cli.options import VERBOSE, app
from plankwise.core.errors import OutputError, PlankwiseError, RecipeError
from plankwise.core.progress import set_verbose

__all__ = [
    "app",
    "comparing",
    "data",
    "deploying",
    "experiments",
    "inspect",
    "main",
    "reviewing",
    "run_app",
    "searching",
    "shrinking",
]
_QUIET = {  # read by libraries when they are imported; what the user has set takes precedence
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}
_UsageFault: type[BaseException] = typer.BadParameter.__mro__[2]  # ClickException, of click or of Typer's copy of it
_INTERRUPTED = 130
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # which no check beforehand can predict


def main(app: Callable[..., Any] = app) -> None:
    """Run the command line; a user's mistake ends in one line on standard error and exit code 2."""
    verbose = VERBOSE in sys.argv[1:]  # before or after the verb: libraries have to know before they are imported
    sys.argv[1:] = [each for each in sys.argv[1:] if each != VERBOSE]
    with _logging_to_stderr(verbose):
        raise SystemExit(run_app(app))


def run_app(app: Callable[..., Any]) -> int:
    """Run a Typer app on `sys.argv` and return its exit code; errors of the user become one line."""
    try:
        _check_arguments(sys.argv[1:])
        code = app(prog_name="plankwise", standalone_mode=False)
    except PlankwiseError as error:
        return _complain(str(error), error.exit_code)
    except OSError as error:
        if error.errno is None:  # raised by a library, not by the system: a fault of ours
            raise
        where = f"cannot use {error.filename}: " if error.filename else ""
        hint = "; --resume continues a run" if error.errno in DISK_FAULTS else ""
        return _complain(f"{where}{error.strerror}{hint}", OutputError.exit_code)
    except _UsageFault as error:
        return _complain_of_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:  # Click turns the signal into an exit code while a verb runs
        return _complain("interrupted; --resume continues a run", _INTERRUPTED)
    return code if isinstance(code, int) else 0


def _check_arguments(arguments: Sequence[str]) -> None:
    """Check that arguments are UTF-8 text: a record could not hold other names."""
    for each in arguments:
        try:
            each.encode()
        except UnicodeEncodeError:
            raise RecipeError(f"the argument '{each}' is not UTF-8 text; allowed: names in UTF-8") from None
        if "\0" in each:
            raise RecipeError(f"the argument {each!r} holds a zero byte")


def _complain(message: str, code: int) -> int:
    """Print one line; characters that cannot be printed, or would break the line, are escaped as in Python."""
    printable = "".join(each if each.isprintable() else repr(each)[1:-1] for each in message)
    typer.echo(f"plankwise: {printable}", err=True)
    return code


def _complain_of_usage(error: BaseException) -> int:
    """Print Click's complaint as one line, or the help if there is no verb at all."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return 2
    context = getattr(error, "ctx", None)
    hint = f"; see {context.command_path} --help" if context is not None else ""
    message = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
    names = getattr(getattr(error, "param", None), "opts", ())
    # Click names the option but not always the value; the value follows it on the command line.
    given = next((value for name, value in zip(sys.argv, sys.argv[1:], strict=False) if name in names), None)
    if given is not None:
        message = message.replace("Invalid value for", f"Invalid value '{given}' for", 1)
    return _complain(f"{message[:1].lower()}{message[1:]}{hint}", 2)


@contextmanager
def _logging_to_stderr(verbose: bool) -> Iterator[None]:
    """Log to standard error: plankwise's own lines and, unless verbose, only errors of other libraries."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name, value in ({} if verbose else _QUIET).items():
        os.environ.setdefault(name, value)
    root, own, python = logging.getLogger(), logging.getLogger("plankwise"), logging.getLogger("py.warnings")
    before = [(each, each.level) for each in (root, own, python)]
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    root.setLevel(logging.INFO if verbose else logging.ERROR)
    own.setLevel(logging.INFO)
    python.setLevel(logging.NOTSET if verbose else logging.ERROR)
    logging.captureWarnings(True)
    set_verbose(verbose)
    try:
        yield
    finally:
        set_verbose(False)
        logging.captureWarnings(False)
        for each, level in before:
            each.setLevel(level)
