"""How much memory pretraining takes on a generated corpus of a gigabyte or more: reading, tokenizing, training.

Writes lines of random words of Zipfian frequency, every twentieth line a repeat, then runs `plankwise pretrain` on
them in its own process: the corpus is read and deduplicated, a tokenizer trained, the text tokenized and packed,
and a small language model trained for a few dozen steps. Memory is sampled from /proc; what counts is
anonymous memory, since the system drops pages of memory-mapped files when it needs room. The last line is one
JSON object.

Usage: python benchmarks/corpus_memory.py [--gigabytes 1] [--steps 40] [--folder FOLDER]
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.hardware import environment
from results import parser_of

INTERVAL_S = 0.2
WORDS = 200_000
WORDS_PER_LINE = 40
LINES_PER_WRITE = 5_000
BATCH_SIZE, BLOCK = 16, 128
CHARACTERS_PER_TOKEN = 3.5  # roughly; it only turns steps into a share of an epoch


def write_corpus(path: Path, size: int, seed: int = 0) -> None:
    """Write at least `size` bytes of documents of up to thirty lines."""
    draw = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    lengths = draw.integers(2, 12, WORDS)
    words = np.array(["".join(draw.choice(letters, length)) for length in lengths], dtype=object)
    shares = 1.0 / (np.arange(WORDS) + 2.7)
    cumulative = np.cumsum(shares / shares.sum())
    early: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            ranks = np.searchsorted(cumulative, draw.random((LINES_PER_WRITE, WORDS_PER_LINE)))
            lines = [" ".join(row) for row in words[np.minimum(ranks, WORDS - 1)]]
            early = early or lines[:500]
            for at in range(0, LINES_PER_WRITE, 20):
                lines[at] = early[(at // 20) % len(early)]
            ends = draw.random(LINES_PER_WRITE) < 1 / 15
            file.writelines(f"{line}\n\n" if end else f"{line}\n" for line, end in zip(lines, ends, strict=True))


def recipe(corpus: Path, size: int, steps: int) -> dict[str, Any]:
    """Return a recipe that reads all of the corpus and trains for some steps."""
    epochs = steps * BATCH_SIZE * BLOCK / (size / CHARACTERS_PER_TOKEN)
    scratch = {
        "layers": 2,
        "width": 64,
        "heads": 2,
        "growth": [2],
        "epochs": [epochs],
        "batch_size": BATCH_SIZE,
        "block": BLOCK,
        "vocabulary": {"size": 8000},
        "checkpoints": 2,
    }
    return {
        "name": "corpus-memory",
        "task": {"name": "corpus", "files": [str(corpus)], "deduplicate": True},
        "model": {"max_length": BLOCK, "scratch": scratch},
        "baseline": None,
    }


class MemoryMonitor:
    """Samples the memory of a process until it ends, in kilobytes."""

    def __init__(self, process: int) -> None:
        self._status = Path(f"/proc/{process}/status")
        self.anonymous = self.since_mark = self.resident = 0

    def sample(self) -> bool:
        """Read the memory once; return whether the process was still running."""
        try:
            found = dict(re.findall(r"^(RssAnon|VmHWM):\s+(\d+)", self._status.read_text(encoding="utf-8"), re.M))
        except OSError:
            return False
        anonymous = int(found.get("RssAnon", 0))
        self.anonymous, self.since_mark = max(self.anonymous, anonymous), max(self.since_mark, anonymous)
        self.resident = max(self.resident, int(found.get("VmHWM", 0)))
        return bool(found)

    def mark(self) -> int:
        """Return the peak since the last mark."""
        peak, self.since_mark = self.since_mark, 0
        return peak


def measure(folder: Path, size: int, steps: int) -> dict[str, Any]:
    """Run the pretraining and sample its memory."""
    (folder / "recipe.yaml").write_text(json.dumps(recipe(folder / "corpus.txt", size, steps)), encoding="utf-8")
    command = [sys.executable, "-m", "plankwise", "pretrain", str(folder / "recipe.yaml")]
    variables = {**os.environ, "PLANKWISE_CACHE": str(folder / "cache")}
    start = time.perf_counter()
    command += ["--out", str(folder / "run"), "--json"]
    process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    monitor = MemoryMonitor(process.pid)

    def follow() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            seconds, megabytes = time.perf_counter() - start, monitor.mark() // 1024
            print(f"{seconds:6.0f} s {megabytes:6d} MB before: {line.rstrip()}", flush=True)

    follower = threading.Thread(target=follow)
    follower.start()
    printed: list[str] = []
    reader = threading.Thread(target=lambda: printed.append(process.stdout.read() if process.stdout else ""))
    reader.start()
    while process.poll() is None:
        monitor.sample()
        time.sleep(INTERVAL_S)
    follower.join()
    reader.join()
    if process.returncode:
        raise SystemExit(f"plankwise pretrain ended with {process.returncode}")
    record = json.loads(printed[0])
    counts = next((folder / "cache" / "corpora").glob("*/counts.json")).read_text(encoding="utf-8")
    pretrained = json.loads((folder / "run" / "pretrained" / "stage.json").read_text(encoding="utf-8"))
    return {
        "peak_anon_mb": monitor.anonymous // 1024,
        "peak_rss_mb": monitor.resident // 1024,
        "seconds": round(time.perf_counter() - start, 1),
        "corpus": json.loads(counts),
        "blocks": pretrained["details"]["blocks"],
        "steps": pretrained["details"]["stages"][0]["steps"],
        "perplexity": record["baseline"]["scores"]["perplexity"],
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="minimum size of the corpus")
    parser.add_argument("--steps", type=int, default=40, help="training steps, roughly")
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        corpus = Path(name) / "corpus.txt"
        write_corpus(corpus, int(arguments.gigabytes * 1e9))
        size = corpus.stat().st_size
        print(f"wrote {size / 1e9:.2f} GB", flush=True)
        measured = measure(Path(name), size, arguments.steps)
    print(json.dumps({"gigabytes": round(size / 1e9, 3), **measured, "environment": environment()}))


if __name__ == "__main__":
    main()
