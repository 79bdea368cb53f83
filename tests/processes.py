"""Starts commands in processes of their own, forked from one that has imported the libraries: that takes seconds.

What such a process does, leaves and returns is its own, kills included; only its imports are not.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["plankwise.cli", "plankwise.run.domain.experiment", "plankwise.search.study", "plankwise.search.pareto.worker"]
)


def start(
    command: Sequence[object], folder: Path, errors: Path | None = None, variables: Mapping[str, str] | None = None
) -> BaseProcess:
    """Start Python with these arguments, `-m MODULE …` or `-c CODE …`.

    Args:
        command: what follows the interpreter's name.
        folder: where it runs.
        errors: file for standard error.
        variables: its whole environment; by default this process's.
    """
    given = [str(each) for each in command]
    made = _CONTEXT.Process(target=_run, args=(given, folder, errors, dict(variables or os.environ)))
    made.start()
    return made


def kill(process: BaseProcess) -> None:
    """Kill a process outright, and check that it had not ended before."""
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"it had ended with {process.exitcode}"


def wait_for(condition: Callable[[], bool], process: BaseProcess, seconds: float = 180) -> None:
    """Wait until a condition holds, and check that the process that brings it about is alive."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        assert process.is_alive(), "the process ended too early"
        time.sleep(0.05)


def run_ranks(command: Sequence[object], folder: Path, ranks: int = 2, seconds: float = 300.0) -> list[tuple[int, str]]:
    """Run a command once for each rank, in `folder`, and return each exit code and standard error.

    The processes are those of one run and talk over gloo on the CPU. A launcher such as torchrun would end the others
    as soon as one fails, and hide that they wait.

    Raises:
        TimeoutError: if one of them has not ended after so many seconds.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks), "ACCELERATE_USE_CPU": "1"}
    written = [folder / f".errors-{rank}" for rank in range(ranks)]
    started = [
        start(command, folder, errors, {**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, errors in enumerate(written)
    ]
    try:
        for each in started:
            each.join(seconds)
            if each.exitcode is None:
                raise TimeoutError(f"process {each.pid} has not ended after {seconds:.0f} s")
        return [(each.exitcode or 0, errors.read_text()) for each, errors in zip(started, written, strict=True)]
    finally:
        for each in started:
            each.kill()
            each.join()


def _run(command: Sequence[str], folder: Path, errors: Path | None, variables: Mapping[str, str]) -> None:
    """Do what Python does with these arguments, in a process that was forked for it."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    for path, descriptor in ((Path(os.devnull), 1), (errors or Path(os.devnull), 2)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    warnings.simplefilter("ignore")
    option, what, *sys.argv[1:] = command
    sys.argv[0] = what if option == "-m" else option
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "-c", "exec"), {"__name__": "__main__"})
