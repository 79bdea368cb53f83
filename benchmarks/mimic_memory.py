"""How much memory and time the extraction from MIMIC-III takes, on a synthetic NOTEEVENTS of a gigabyte or more.

Writes synthetic tables whose discharge summaries and notes have about the length of real ones, then runs
`plankwise data mimic` once for each definition, in its own process. The last line is one JSON object: for each
definition its seconds and the peak resident memory of that process.

Usage: python benchmarks/mimic_memory.py [--gigabytes 1] [--memory 512] [--folder FOLDER]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from plankwise.core.hardware import environment
from plankwise.data.mimic.synthetic import write_synthetic
from results import parser_of

LENGTH = 8000  # characters of a note
BYTES_PER_ADMISSION = 36_000  # at that length, roughly


def measure(tables: Path, out: Path, definition: str, memory: int) -> dict[str, Any]:
    """Run one extraction; wait4 returns the peak memory of that process alone, getrusage would not."""
    command = [sys.executable, "-m", "plankwise", "data", "mimic", "--definition", definition, "--json"]
    command += ["--mimic-dir", str(tables), "--out", str(out), "--memory", str(memory)]
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            raise SystemExit(f"{definition}: the extraction ended with {os.waitstatus_to_exitcode(status)}")
        printed.seek(0)
        counts = json.loads(printed.read())
    measured = {
        "seconds": round(seconds, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
        "output_bytes": sum(path.stat().st_size for path in out.iterdir()),
        "admissions": sum(split["admissions"] for split in counts["splits"].values()),
    }
    print(f"{definition}: {measured}")
    return measured


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0, help="minimum size of NOTEEVENTS")
    parser.add_argument("--memory", type=int, default=512, help="MB for DuckDB")
    parser.add_argument("--folder", type=Path, help="where to work; the system's temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        tables = Path(name) / "tables"
        start = time.perf_counter()
        rows = write_synthetic(tables, int(arguments.gigabytes * 1e9 / BYTES_PER_ADMISSION) + 1, length=LENGTH)
        size = (tables / "NOTEEVENTS.csv").stat().st_size
        print(f"wrote {size / 1e9:.2f} GB of notes in {time.perf_counter() - start:.0f} s")
        definitions = {
            each: measure(tables, Path(name) / each, each, arguments.memory)
            for each in ("admission-notes", "first-48h")
        }
    print(
        json.dumps(
            {
                "noteevents_bytes": size,
                "notes": rows["NOTEEVENTS"],
                "memory_limit_mb": arguments.memory,
                "definitions": definitions,
                "environment": environment(),
            }
        )
    )


if __name__ == "__main__":
    main()
