"""What `plankwise predict` adds to the model's own time: reading a CSV, tokenizing, running, writing 100,000 tweets.

The command runs from start to end in its own process, imports and opening the model included. The pure model time is
that of the same batches, tokenized and padded beforehand, from as many threads as the runtime has streams. Both take
turns. The last line is one JSON document:

- over_model: seconds of the command / seconds of the model alone, median of the rounds' ratios, and spread; the target
  is at most 1.25
- seconds: of both, medians; rows, tokens, rounds, threads
- without_start: the same ratio with the seconds that the command itself counts once the model is open
- load, warnings, environment

Usage: python benchmarks/predict_overhead.py MODEL [--texts FILE] [--column text] [--rows 100000] [--rounds 3]
       [--threads 2]

MODEL is an artefact, such as one in the folder of throughput.py. Without --texts, texts are random words of
the vocabulary, as long as tweets.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer

from plankwise.core.hardware import environment, fixed_threads
from plankwise.core.timing import ratio, ratios_of
from plankwise.data.batching.inputs import Inputs, Text
from plankwise.deploy.deployed import Deployed, open_model
from plankwise.evaluation.benchmark.stream_pool import StreamPool
from plankwise.evaluation.benchmark.system_load import LoadMonitor, load_warnings, unsteady_warnings
from plankwise.evaluation.benchmark.workload import texts_of_file, workload
from results import parser_of
from workbench import random_texts

TARGET = 1.25
BUFFER_SIZE, BUDGET = 4096, 512  # those of the command: texts sorted together, padded tokens of a batch


def texts_for(arguments: argparse.Namespace, tokenizer: Tokenizer) -> list[str]:
    """Read texts, or generate some, and repeat them up to the number of rows."""
    if arguments.texts is not None:
        given = [str(text) for text in texts_of_file(arguments.texts, arguments.column, arguments.rows)]
    else:
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        given = random_texts(min(arguments.rows, BUFFER_SIZE), tokenizer.get_vocab(), special)
    return list(itertools.islice(itertools.cycle(given), arguments.rows))


def write_table(texts: Sequence[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text"])
        rows.writerows(enumerate(texts, 1))


def batches_of(deployed: Deployed, texts: Sequence[Text]) -> tuple[list[Inputs], int]:
    """Return the batches that the command makes, block by block, and the number of their tokens."""
    blocks = [texts[start : start + BUFFER_SIZE] for start in range(0, len(texts), BUFFER_SIZE)]
    made = [workload(deployed.manifest, deployed.tokenizer, block, BUDGET) for block in blocks]
    return [batch for each in made for batch in each.batches], sum(sum(each.lengths) for each in made)


def predicted(model: str, table: Path, out: Path, threads: int) -> tuple[float, dict[str, Any]]:
    """Run the command; return its seconds from start to end and its JSON output."""
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "plankwise", "predict", model, str(table), str(out)]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "--threads", str(threads), "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"plankwise predict ended with exit code {done.returncode}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seconds, report


def measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    table, out = scratch / "tweets.csv", scratch / "predictions.csv"
    whole, inner, alone = list[float](), list[float](), list[float]()
    with fixed_threads(arguments.threads):
        deployed = open_model(arguments.model, "throughput", arguments.threads)
        texts = texts_for(arguments, deployed.tokenizer)
        write_table(texts, table)
        batches, tokens = batches_of(deployed, texts)
        loads = list[Any]()
        with StreamPool(deployed.runtime) as pool:
            pool.warm_up(batches)
            for _ in range(arguments.rounds):
                seconds, report = predicted(arguments.model, table, out, arguments.threads)
                if report["predicted"] != len(texts):
                    sys.exit(f"{report['predicted']} of {len(texts)} rows were predicted")
                whole.append(seconds)
                inner.append(report["seconds"])
                with LoadMonitor() as monitor:
                    start = time.perf_counter()
                    pool.run(batches)
                    alone.append(time.perf_counter() - start)
                loads.append(monitor.load)
    over = ratio(whole, alone)
    warnings = {warning for load in loads for warning in load_warnings(load, arguments.threads)}
    return {
        "over_model": over,
        "target": TARGET,
        "met": over["speedup"] <= TARGET,
        "without_start": ratio(inner, alone),
        "seconds": {"predict": statistics.median(whole), "model": statistics.median(alone)},
        "rows": len(texts),
        "tokens": tokens,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "model": {"runtime": deployed.manifest.runtime, "precision": deployed.manifest.precision},
        "load": [load.as_json() for load in loads],
        "warnings": [*sorted(warnings), *unsteady_warnings({"predict over model": ratios_of(whole, alone)})],
        "environment": environment(),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--column", default="text")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="plankwise-predict-") as scratch:
        print(json.dumps(measure(arguments, Path(scratch))))


if __name__ == "__main__":
    main()
