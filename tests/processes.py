"""Starts a command as the processes of one run, which talk over gloo on the CPU, without a launcher that ends them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path


def run_ranks(command: Sequence[str], folder: Path, ranks: int = 2, seconds: float = 300.0) -> list[tuple[int, str]]:
    """Run `command` once for each rank, in `folder`, and return each exit code and standard error.

    A launcher such as torchrun would end the other processes as soon as one fails, and hide that they wait.

    Raises:
        subprocess.TimeoutExpired: if one of them has not ended after so many seconds.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks), "ACCELERATE_USE_CPU": "1"}
    started = [
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        return [(each.wait(seconds), each.stderr.read() if each.stderr else "") for each in started]
    finally:
        for each in started:
            each.kill()
            each.communicate()
