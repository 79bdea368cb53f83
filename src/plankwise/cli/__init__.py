"""The command line: one verb for each part of the work. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import logging
import os
import sys

import typer

from plankwise.cli import data, deploying, experiments, looks  # importing them is what registers their verbs
from plankwise.cli.options import app
from plankwise.core.errors import PlankwiseError

__all__ = ["app", "data", "deploying", "experiments", "looks", "main"]


def main() -> None:
    """Run the command line; a user's mistake ends in one line on standard error and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "accelerate", "datasets", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        app()
    except PlankwiseError as error:
        typer.echo(f"plankwise: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("plankwise: interrupted; a run goes on with --resume", err=True)
        raise SystemExit(130) from None
