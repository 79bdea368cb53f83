"""How much memory a model takes, measured in a process of its own that opens it and runs its batches once.

`python -m plankwise.evaluation.benchmark.peak_memory REQUEST ANSWER` is that process.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from plankwise.core.errors import ModelError
from plankwise.core.files import write_json
from plankwise.data.batching.inputs import Text
from plankwise.data.truncation import Truncation
from plankwise.deploy.deployed import open_model
from plankwise.evaluation.benchmark.stream_pool import StreamPool
from plankwise.evaluation.benchmark.workload import workload

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class PeakMemory:
    """The most memory that a model added to its process.

    Attributes:
        size_bytes: None where it could not be measured.
        missing: why there is no figure; empty where there is one.
    """

    size_bytes: int | None
    missing: str = ""


@dataclass(frozen=True)
class MemoryRequest:
    """What a process is to open and run.

    Attributes:
        folder: of the model.
        truncation: how much of a text it reads.
        texts: to run, in order of arrival.
        budget: padded tokens of a batch; None takes texts in order of arrival.
        threads: cores to use.
    """

    folder: str
    truncation: Truncation
    texts: list[Text]
    budget: int | None
    threads: int


def peak_memory(request: MemoryRequest, *, python: str = sys.executable) -> PeakMemory:
    """Measure the most resident memory that opening a model and running all texts adds, in a new process.

    What the process held before, with all libraries loaded, is not counted.

    Args:
        request: model and texts.
        python: the interpreter that runs the process.

    Raises:
        ModelError: if the process failed.
    """
    if not STATUS.exists():
        return PeakMemory(None, f"this system has no {STATUS}")
    with TemporaryDirectory() as scratch:
        question, answer = Path(scratch) / "request.json", Path(scratch) / "answer.json"
        write_json(question, dataclasses.asdict(request))
        command = [python, "-m", "plankwise.evaluation.benchmark.peak_memory", str(question), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ModelError(f"the memory of {request.folder} could not be measured: {lines[-1]}")
        return PeakMemory(**json.loads(answer.read_text(encoding="utf-8")))


def measure_here(request: MemoryRequest, clear_refs: Path = CLEAR_REFS) -> PeakMemory:
    """Measure in this process; what it allocated and freed before may be reused unseen, so start a new one for it.

    Args:
        request: model and texts.
        clear_refs: the file of Linux that resets the peak.
    """
    try:
        clear_refs.write_text("5", encoding="utf-8")  # 5: the peak (VmHWM) restarts at the present size (proc(5))
    except OSError as error:
        # The peak of importing torch would stay in VmHWM and hide a small model.
        return PeakMemory(None, f"the peak of the process cannot be reset: {clear_refs}: {error.strerror or error}")
    before = _resident("VmRSS")
    deployed = open_model(request.folder, "throughput", request.threads, request.truncation)
    given = workload(deployed.manifest, deployed.tokenizer, request.texts, request.budget)
    with StreamPool(deployed.runtime) as pool:
        pool.run(given.batches)
    return PeakMemory(_resident("VmHWM") - before)


def _resident(key: str) -> int:
    """Read the resident size (VmRSS) or its peak (VmHWM) in bytes; getrusage would count that of the parent too."""
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(key)))


def _answer(question: Path, answer: Path) -> None:
    stored = json.loads(question.read_text(encoding="utf-8"))
    texts: list[Text] = [text if isinstance(text, str) else (text[0], text[1]) for text in stored.pop("texts")]
    truncation = Truncation(**stored.pop("truncation"))
    write_json(answer, dataclasses.asdict(measure_here(MemoryRequest(truncation=truncation, texts=texts, **stored))))


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), Path(sys.argv[2]))
