"""Result files by class of machine, and the command that stores one.

Figures of different machines do not compare, so each class of machine has a folder of its own: results/CLASS/NAME.json,
where CLASS says which instructions multiply 8-bit numbers, whether bf16 is native, and how many cores there are
(`vnni-bf16-2cores`, `avx2-2cores`). A result that does not record its machine belongs to `unknown`.

Usage: SCRIPT | python benchmarks/results.py NAME [--here]      the last line of the input is the document
       python benchmarks/results.py NAME --file FILE [--here]   the file is the document
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plankwise.core.files import write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
UNKNOWN = "unknown"
# Fastest first. A class is named after the first entry of which the processor has a flag, in Linux' spelling.
INSTRUCTIONS = {
    "amx": {"amx_int8"},
    "vnni": {"avx512_vnni", "avx_vnni"},
    "dotprod": {"asimddp"},
    "avx512": {"avx512f"},
    "avx2": {"avx2"},
}
BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


def parser_of(module_doc: str | None) -> argparse.ArgumentParser:
    """Return a parser described by the first line of a module's docstring."""
    return argparse.ArgumentParser(description=module_doc.splitlines()[0] if module_doc else None)


def parser_of_seed(module_doc: str | None) -> argparse.ArgumentParser:
    """Log what is done, and return a parser of what experiments ask for that are made one seed at a time."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.ERROR)
    logging.getLogger("plankwise").setLevel(logging.INFO)
    parser = parser_of(module_doc)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--work", type=Path, default=ROOT / "runs", help="folder in which it resumes")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="KEY=VALUE, as in recipes")
    return parser


def machine_class(environment: Mapping[str, Any]) -> str:
    """Return the class of the machine that `core.hardware.environment()` described; `unknown` without flags."""
    cpu = environment.get("cpu") or {}
    flags = set(cpu.get("flags") or ())
    if not flags or not cpu.get("cores"):
        return UNKNOWN
    name = next((name for name, needed in INSTRUCTIONS.items() if flags & needed), "other")
    cores = f"{cpu['cores']}core{'' if cpu['cores'] == 1 else 's'}"
    return "-".join([name, *(["bf16"] if flags & BF16 else []), cores])


def environment_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the environment that a result recorded; empty if it has none."""
    return dict(result.get("environment") or {})


def class_of(result: Mapping[str, Any]) -> str:
    """Return the class of the machine that made a result; results of a GPU are classed by its name."""
    environment = environment_of(result)
    gpu = environment.get("gpu")
    if gpu and result.get("device") == gpu["name"]:
        return re.sub(r"[^a-z0-9]+", "-", gpu["name"].lower()).strip("-")
    return machine_class(environment)


def results_of(name: str, root: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Read a result of every class of machine, by class, fastest first and `unknown` last."""
    found = {path.parent.name: json.loads(path.read_text("utf-8")) for path in root.glob(f"*/{name}.json")}
    return dict(sorted(found.items(), key=lambda each: speed_rank(each[0])))


def speed_rank(machine: str) -> tuple[int, int, int, str]:
    """Return a sort key: GPUs, then processors by instructions, native bf16 and cores, then `unknown`."""
    if machine == UNKNOWN:
        return len(INSTRUCTIONS) + 1, 0, 0, machine
    match = re.fullmatch(r"(\w+?)(-bf16)?-(\d+)cores?", machine)
    if match is None:
        return -1, 0, 0, machine
    order = [*INSTRUCTIONS].index(match[1]) if match[1] in INSTRUCTIONS else len(INSTRUCTIONS)
    return order, 0 if match[2] else 1, -int(match[3]), machine


def describe(environment: Mapping[str, Any]) -> str:
    """Describe a recorded machine in a phrase for a table's caption."""
    if machine_class(environment) == UNKNOWN:
        return "a machine that was not recorded"
    cpu, versions = environment["cpu"], environment.get("versions", {})
    gpu = f", {environment['gpu']['name']}" if environment.get("gpu") else ""
    cores = f"{cpu['cores']} core{'' if cpu['cores'] == 1 else 's'}"
    python, torch = versions.get("python"), versions.get("torch")
    return f"{cpu['model']}, {cores}, {', '.join(cpu['flags'])}{gpu}; Python {python}, torch {torch}"


def store(name: str, result: dict[str, Any], root: Path = RESULTS) -> Path:
    """Write a result to the folder of its class of machine and return the path.

    Raises:
        SystemExit: if the result was made with --quick; its figures mean nothing.
    """
    if result.get("quick"):
        sys.exit(f"{name} was made with --quick, and its figures mean nothing; run the benchmark without it")
    path = root / class_of(result) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return path


def last_document(lines: Iterable[str]) -> dict[str, Any]:
    """Pass all lines but the last to stderr and read the last as JSON.

    Raises:
        SystemExit: if the last line is not a JSON object.
    """
    last = ""
    for line in lines:
        if last:
            print(last, end="", file=sys.stderr, flush=True)
        last = line
    try:
        document = json.loads(last)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        sys.exit(f"the last line is not a JSON object: {last.strip()[:200]!r}")
    return document


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--file", type=Path, help="the document; the last line of the input by default")
    parser.add_argument("--here", action="store_true", help="it was made on this machine, if it does not say where")
    arguments = parser.parse_args()
    result = json.loads(arguments.file.read_text("utf-8")) if arguments.file else last_document(sys.stdin)
    if arguments.here and not environment_of(result):
        from plankwise.core.hardware import environment  # torch takes seconds to import

        result["environment"] = environment()
    print(store(arguments.name, result).relative_to(ROOT))


if __name__ == "__main__":
    main()
