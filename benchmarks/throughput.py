"""How fast models of BERT-base geometry predict tweets in each runtime: 12 and 6 layers, whole and pruned.

Random weights; tweets are lognormal in length (median 35 tokens, p95 80, cut at 128). Pruned models keep 6 of 12 heads
and 768 of 3,072 neurons in every layer. `eager` is torch in fp32 with 8 texts a batch in order of arrival, padded to
the longest; all others take the same texts, sorted into batches of at most --budget padded tokens. All take turns in
one run. Single texts of 32 and 128 tokens are timed before, in latency mode. The last line is one JSON document:

- <model>.<runtime>: ms_per_text, over_eager and over_onnxruntime_fp32 (times of bert12 in that runtime / its own,
  medians of the rounds' ratios) with over_..._spread, percent_of_ceiling
- latency.<tokens>.<model>.<runtime>: p50_ms, p95_ms, over_eager
- targets: target, measurement, and whether it was met
- load, warnings, ceiling_gops, environment

Artefacts are made once and kept under --work; remove that folder after changes to export.

Usage: python benchmarks/throughput.py --work FOLDER [--rounds 7] [--texts 128] [--threads 2] [--budget 512]
       [--tokenizer FOLDER] [--only 'bert12.*' ...] [--quick]
"""

from __future__ import annotations

import argparse
import fnmatch
import itertools
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.hardware import environment, fixed_threads
from plankwise.data.batching.inputs import Encoded
from plankwise.data.batching.token_budget import padded_batch, starts_of, token_budget_batches
from plankwise.data.truncation import Truncation
from plankwise.deploy.deployed import Deployed, open_model
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import is_artefact
from plankwise.deploy.runtimes import Mode
from plankwise.encoder.checkpoint import save
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.benchmark.measurements import Measurements
from plankwise.evaluation.benchmark.peak_gemm import peak_gemm
from plankwise.evaluation.benchmark.system_load import LoadMonitor, load_warnings, unsteady_warnings
from plankwise.evaluation.benchmark.workload import ARRIVAL_BATCH, Workload
from results import parser_of
from workbench import MODELS, TOKENIZER, base_model, random_texts, random_tweets

RUNTIMES = {
    "eager": None,
    "eager-sorted": None,
    "onnxruntime-fp32": ("onnx", "fp32"),
    "openvino-fp32": ("openvino", "fp32"),
    "openvino-bf16": ("openvino", "bf16"),
    "onnxruntime-int8": ("onnx", "int8-dynamic"),
    "openvino-int8": ("openvino", "int8"),
}
REFERENCES = {"bert12.eager": "over_eager", "bert12.onnxruntime-fp32": "over_onnxruntime_fp32"}
INT8 = "openvino-int8"
TARGETS = {
    "bert12": {"over_eager": 8.0, "over_onnxruntime_fp32": 3.5},
    "bert6": {"over_eager": 15.0, "over_onnxruntime_fp32": 7.0},
    "bert12-pruned": {"over_eager": 20.0, "over_onnxruntime_fp32": 9.0},
    "bert6-pruned": {"over_eager": 32.0, "over_onnxruntime_fp32": 16.0},
}
LATENCY_TARGETS = {"bert12-pruned": 11.0}
SINGLE = ("bert12.eager", "bert12.onnxruntime-fp32", *(f"{model}.{INT8}" for model in MODELS))
TOKENS, CALIBRATION = (32, 128), 64


@dataclass(frozen=True)
class Artefacts:
    """Where artefacts are kept, their tokenizer, and whether their models are small."""

    work: Path
    tokenizer: Path
    small: bool

    def folder(self, model: str, runtime: str) -> Path:
        """Return the folder of a model in one runtime."""
        how = RUNTIMES[runtime]
        form = "torch" if how is None else "-".join(how)
        return self.work / ("small" if self.small else "base") / f"{model}.{form}"

    def make(self, model: str, runtime: str) -> None:
        """Save or export a model unless its folder is there."""
        folder, how, source = self.folder(model, runtime), RUNTIMES[runtime], self.folder(model, "eager")
        tokenizer = load_tokenizer(str(self.tokenizer))
        if not (source / "config.json").exists():
            save(base_model(model, len(tokenizer), self.small), tokenizer, source)
        if how is None or is_artefact(folder):
            return
        logging.info("making %s", folder)
        texts = random_texts(CALIBRATION, tokenizer.get_vocab(), tokenizer.num_special_tokens_to_add())
        # Weights are random, so that the change of probabilities means nothing: any tolerance will do.
        truncation = Truncation(max_length=128)
        export(source, folder, to=how[0], precision=how[1], truncation=truncation, calibration=texts, tolerance=1.0)


def batches_of(tweets: Encoded, padding: Mapping[str, int], budget: int | None) -> Workload:
    """Batch the tweets: sorted, under a budget of padded tokens, or 8 at a time in order of arrival."""
    numbers = np.arange(len(tweets.lengths))
    if budget is None:
        groups = [numbers[start : start + ARRIVAL_BATCH] for start in range(0, len(numbers), ARRIVAL_BATCH)]
    else:
        groups = token_budget_batches(tweets.lengths, budget)
    starts = starts_of(tweets.lengths)
    batches = [padded_batch(tweets, starts, group, padding) for group in groups]
    return Workload(batches, len(numbers), tweets.lengths.tolist())


def opened(artefacts: Artefacts, names: Sequence[str], mode: Mode, threads: int) -> dict[str, Deployed]:
    """Open models by name; eager and eager-sorted share one."""
    torch_models: dict[str, Deployed] = {}
    found = {}
    for name in names:
        model, runtime = name.split(".")
        if RUNTIMES[runtime] is None:
            if model not in torch_models:
                torch_models[model] = open_model(artefacts.folder(model, runtime), mode, threads)
            found[name] = torch_models[model]
        else:
            found[name] = open_model(artefacts.folder(model, runtime), mode, threads)
    return found


def measure(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    artefacts = Artefacts(arguments.work, arguments.tokenizer, arguments.quick)
    single = [name for name in SINGLE if name in names]
    for name in names:
        artefacts.make(*name.split("."))
    with fixed_threads(arguments.threads), LoadMonitor() as monitor:
        measurements = Measurements(tuple(REFERENCES), peak_gemm(arguments.threads), arguments.rounds)
        alone = opened(artefacts, single, "latency", arguments.threads)
        latency = {str(tokens): measurements.latency(alone, tokens) for tokens in TOKENS}
        alone.clear()
        models = opened(artefacts, names, "throughput", arguments.threads)
        tweets = random_tweets(arguments.texts, 1000)
        work = {
            name: batches_of(tweets, each.manifest.padding, None if name.endswith(".eager") else arguments.budget)
            for name, each in models.items()
        }
        throughput = measurements.throughput(models, work)
    found: dict[str, Any] = {model: {} for model in MODELS if any(name.startswith(f"{model}.") for name in names)}
    for model, runtime in itertools.product(found, RUNTIMES):
        name = f"{model}.{runtime}"
        if name in throughput:
            found[model][runtime] = shown(name, throughput[name])
    found["latency"] = {tokens: nested(case) for tokens, case in latency.items()}
    found["targets"] = targets(found)
    found |= {name: getattr(arguments, name) for name in ("rounds", "texts", "threads", "budget", "quick")}
    found["ceiling_gops"], found["load"] = measurements.peak_gops, monitor.load.as_json()
    found["warnings"] = [*load_warnings(monitor.load, arguments.threads), *unsteady_warnings(measurements.ratios)]
    return {**found, "environment": environment()}


def shown(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the figures of one model in one runtime; the ratio of a reference to itself is 1."""
    found = {key: figure[key] for key in figure if key not in ("speedup", "spread", "over")}
    for reference, key in REFERENCES.items():
        over = figure["over"].get(reference, {"speedup": 1.0, "spread": [1.0, 1.0]} if reference == name else None)
        if over is not None:
            found |= {key: over["speedup"], f"{key}_spread": over["spread"]}
    return found


def nested(case: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, figure in case.items():
        model, runtime = name.split(".")
        found.setdefault(model, {})[runtime] = shown(name, figure)
    return found


def targets(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare measurements with their targets; those that were not measured are left out."""
    compared = []
    for model, aims in TARGETS.items():
        figure = found.get(model, {}).get(INT8, {})
        compared += [target(f"{model}.{INT8}.{key}", aim, figure.get(key)) for key, aim in aims.items()]
    for (tokens, case), (model, aim) in itertools.product(found["latency"].items(), LATENCY_TARGETS.items()):
        figure = case.get(model, {}).get(INT8, {})
        compared.append(target(f"latency.{tokens}.{model}.{INT8}.over_eager", aim, figure.get("over_eager")))
    return [each for each in compared if each["measured"] is not None]


def target(what: str, aim: float, measured: float | None) -> dict[str, Any]:
    return {"what": what, "target": aim, "measured": measured, "met": measured is not None and measured >= aim}


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = parser_of(__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=int, default=512)
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    parser.add_argument("--only", nargs="+", metavar="MODEL.RUNTIME", help="patterns; references are always timed")
    parser.add_argument("--quick", action="store_true", help="small models, few texts: the measurements mean nothing")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.texts = min(arguments.rounds, 3), min(arguments.texts, 24)
    every = [f"{model}.{runtime}" for model in MODELS for runtime in RUNTIMES]
    wanted = [name for name in every if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only or ["*"])]
    names = [*REFERENCES, *(name for name in wanted if name not in REFERENCES)]
    result = measure(arguments, names)
    for warning in result["warnings"]:
        logging.warning("%s", warning)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
