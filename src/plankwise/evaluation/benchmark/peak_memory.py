"""How much memory a model takes, in a process of its own that opens it and runs its batches once.

`python -m plankwise.evaluation.benchmark.peak_memory REQUEST ANSWER` is that process.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from plankwise.core.errors import ModelError
from plankwise.core.files import write_json
from plankwise.data.batching.inputs import Text
from plankwise.data.truncation import Truncation
from plankwise.deploy.deployed import open_model
from plankwise.evaluation.benchmark.stream_pool import StreamPool
from plankwise.evaluation.benchmark.workload import workload

_STATUS = Path("/proc/self/status")


def peak_memory(folder: str, truncation: Truncation, texts: list[Text], budget: int | None, threads: int) -> int | None:
    """Measure the most resident memory that opening a model and running all texts adds, in bytes.

    What the process held before, with all libraries loaded, is not in it. None where the system does not tell.

    Raises:
        ModelError: if the process failed.
    """
    if not _STATUS.exists():
        return None
    request = {
        "folder": folder,
        "reading": dataclasses.asdict(truncation),
        "texts": texts,
        "budget": budget,
        "threads": threads,
    }
    with TemporaryDirectory() as scratch:
        asked, answer = Path(scratch) / "request.json", Path(scratch) / "answer.json"
        write_json(asked, request)
        command = [sys.executable, "-m", "plankwise.evaluation.benchmark.peak_memory", str(asked), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ModelError(f"the memory of {folder} could not be measured: {lines[-1]}")
        return int(json.loads(answer.read_text(encoding="utf-8")))


def _resident(key: str) -> int:
    """Read the resident size (VmRSS) or its highest value (VmHWM); getrusage would count that of the parent too."""
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key)))


def _forget_peak() -> None:
    """Let the highest value begin anew at the present one; where that is refused, imports may hide a small model."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def _measure(request: Path, answer: Path) -> None:
    asked = json.loads(request.read_text(encoding="utf-8"))
    texts: list[Text] = [text if isinstance(text, str) else (text[0], text[1]) for text in asked["texts"]]
    _forget_peak()
    before = _resident("VmRSS")
    deployed = open_model(asked["folder"], "throughput", asked["threads"], Truncation(**asked["reading"]))
    given = workload(deployed.manifest, deployed.tokenizer, texts, asked["budget"])
    with StreamPool(deployed.runtime) as crew:
        crew.run(given.batches)
    write_json(answer, _resident("VmHWM") - before)


if __name__ == "__main__":
    _measure(Path(sys.argv[1]), Path(sys.argv[2]))
