"""What structured pruning without labels costs at BERT-base size: half the operations, repaired and saved.

BERT-base geometry with random weights, German tweets of GermEval 2018, 2,000 of them without their labels. Which heads
and neurons go means nothing in such a model, but the time to choose them does not depend on the weights. The target is
at most 10 minutes on two cores. The last line is one JSON object:

- seconds: of each phase: importance, selection, repair, save, and their total with everything between them
- linear_flops_per_token: before and after, and fewer_flops, their ratio
- speedup: of predicting the task's own texts, both models in turns, median of the rounds' ratios and their spread
- peak_bytes: peak memory of the process

Usage: python benchmarks/pruning_cost.py [--target 2.0] [--examples 2000] [--threads 2] [--rounds 7] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from method_timing import predicting_by
from plankwise.core.hardware import environment, fixed_threads
from plankwise.core.timing import ratio, take_turns
from plankwise.data.task import TEST, Task
from plankwise.data.tasks.germeval import GermEval2018
from plankwise.data.truncation import Truncation
from plankwise.encoder.checkpoint import load_trained, save
from plankwise.encoder.cost import count_parameters, linear_flops_per_token
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.methods.method import Job, StepLog
from plankwise.methods.pruning import Pruning
from plankwise.training.objectives.registry import objective_of
from results import parser_of
from workbench import SHARED, bert_classifier, high_water_mark

TEXTS = 64


def prune_and_save(
    model: PreTrainedModel, settings: Pruning, job: Job, folder: Path
) -> tuple[StepLog, dict[str, float]]:
    """Prune `model` into `folder`; return the log, and the seconds of saving and of the whole."""
    start = time.perf_counter()
    made = settings.compress(model, job)
    compressed = time.perf_counter()
    save(made.model, made.tokenizer, folder)
    return made.log, {"save": time.perf_counter() - compressed, "total": time.perf_counter() - start}


def measure(arguments: argparse.Namespace, task: Task) -> dict[str, Any]:
    tokenizer, truncation = load_tokenizer(str(arguments.tokenizer)), Truncation(max_length=128)
    model = bert_classifier(len(task.labels), vocab_size=len(tokenizer))
    settings = Pruning(target=arguments.target, examples=arguments.examples, labels=False, training=None)
    with tempfile.TemporaryDirectory() as scratch, fixed_threads(arguments.threads):
        job = Job(
            task=task.without_test(),
            tokenizer=tokenizer,
            truncation=truncation,
            objective=objective_of(task.kind),
            seed=0,
            folder=Path(scratch) / "work",
            cache=Path(scratch) / "cache",  # importance that an earlier run measured would cost nothing
        )
        log, seconds = prune_and_save(model, settings, job, Path(scratch) / "pruned")
        pruned = load_trained(str(Path(scratch) / "pruned"))
        texts = task.splits[TEST].select(range(TEXTS))
        with torch.inference_mode():
            runs = {
                name: predicting_by(each, tokenizer, texts, truncation)
                for name, each in {"before": model, "after": pruned}.items()
            }
            timed = take_turns(runs, arguments.rounds)
    flops = {"before": linear_flops_per_token(model), "after": linear_flops_per_token(pruned)}
    return {
        "seconds": {**(log.seconds or {}), **seconds},
        "minutes": seconds["total"] / 60,
        "linear_flops_per_token": flops,
        "fewer_flops": flops["before"] / flops["after"],
        "parameters": {"before": count_parameters(model), "after": count_parameters(pruned)},
        **ratio(timed["before"], timed["after"]),
        "examples": log.examples,
        "threads": arguments.threads,
        "peak_bytes": high_water_mark(),
        "environment": environment(),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--target", type=float, default=2.0)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", type=Path, default=SHARED / "data/germeval2018")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "models/german-mini-12x128")
    arguments = parser.parse_args()
    result = measure(arguments, GermEval2018(path=arguments.data).load())
    print(json.dumps(result))


if __name__ == "__main__":
    main()
