"""GermEval 2018, 12 → 6 layers, over several seeds: Theseus against the bottom layers and the paper's preset.

Runs the recipe through the command line into runs/germeval2018/ and resumes what an earlier call left unfinished. All
variants of a seed share their data and train for the same number of steps; all but `bottom-6` start from the same
baseline. The last line is one JSON document.

Usage: python benchmarks/germeval2018.py [--seeds 1 2 3] [--data FOLDER] [--model FOLDER]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from plankwise.core.records import Final, read_record
from plankwise.data.tasks.germeval import METRICS as GERMEVAL_METRICS
from plankwise.encoder.checkpoint import load_masked_lm, save
from plankwise.encoder.surgery import rebuild
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.comparison import Pair, behaviour, retained_performance
from plankwise.evaluation.intervals import score_interval
from plankwise.evaluation.metrics import METRICS, Array, Floats
from plankwise.evaluation.saved_predictions import read_predictions
from plankwise.report.run_report import finished
from plankwise.run.folder import read_entry
from results import ROOT, parser_of
from workbench import SHARED, TOKENIZER

RECIPE = ROOT / "recipes" / "germeval2018.yaml"
RUNS = ROOT / "runs" / "germeval2018"
RESAMPLES = 4000
TRAINING = {"epochs": 8, "batch_size": 32, "evaluations_per_epoch": 2, "learning_rate": 1.5e-4}
PAPER = {"method": "theseus", "preset": "paper", "modules": 6, "training": TRAINING | {"learning_rate": 3.0e-4}}
# Theseus is the recipe itself. "bottom-6" fine-tunes the checkpoint's bottom six layers directly.
VARIANTS: dict[str, list[str]] = {"theseus": [], "theseus-paper": [f"steps={json.dumps([PAPER])}"]}
DIRECT = "bottom-6"


def plankwise(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "plankwise", *map(str, arguments)], check=True)


def run_all(seeds: list[int], data: Path, model: Path) -> None:
    cut = RUNS / "bottom-6-checkpoint"
    if not cut.exists():
        save(rebuild(load_masked_lm(str(model)), [(layer,) for layer in range(6)]), load_tokenizer(str(model)), cut)
    for seed in seeds:
        common = ["--seed", seed, "--resume", "--set", f"task.path={data}", "--set", f"model.source={model}"]
        plankwise("finetune", RECIPE, "--out", RUNS / f"baseline-{seed}", *common)
        for name, overrides in VARIANTS.items():
            sets = [part for each in [f"name={name}", *overrides] for part in ("--set", each)]
            baseline = RUNS / f"baseline-{seed}" / "baseline"
            plankwise("compress", RECIPE, "--baseline", baseline, "--out", RUNS / f"{name}-{seed}", *common, *sets)
        sets = ["--set", f"model.source={cut}", "--set", f"baseline={json.dumps(TRAINING)}", "--set", "steps=[]"]
        plankwise("run", RECIPE, "--out", RUNS / f"{DIRECT}-{seed}", *common, "--set", f"name={DIRECT}", *sets)


def collect(seeds: list[int]) -> dict[str, Any]:
    pairs = {name: [read_predictions(RUNS / f"{name}-{seed}")[1] for seed in seeds] for name in VARIANTS}
    direct = [read_predictions(RUNS / f"{DIRECT}-{seed}")[1] for seed in seeds]
    theseus = pairs["theseus"]
    pairs[DIRECT] = [Pair(a.labels, a.baseline, b.baseline) for a, b in zip(theseus, direct, strict=True)]
    return {
        "seeds": seeds,
        "baseline": [entry(RUNS / f"baseline-{seed}" / "baseline") for seed in seeds],
        "baseline_score": scored([pair.labels for pair in theseus], [pair.baseline for pair in theseus]),
        "majority": final_of(RUNS / f"theseus-{seeds[0]}").majority_scores,
        "variants": {name: variant(name, seeds, each) for name, each in pairs.items()},
        "theseus_over": {
            name: retained([Pair(a.labels, b.compressed, a.compressed) for a, b in zip(theseus, each, strict=True)])
            for name, each in pairs.items()
            if name != "theseus"
        },
        "environment": read_record(RUNS / f"theseus-{seeds[0]}").environment,
    }


def variant(name: str, seeds: list[int], pairs: list[Pair]) -> dict[str, Any]:
    stage = "baseline" if name == DIRECT else "steps/01-theseus"
    runs = [RUNS / f"{name}-{seed}" for seed in seeds]
    speedups = [final_of(run).speedup for run in runs] if name != DIRECT else None
    return {
        "score": scored([pair.labels for pair in pairs], [pair.compressed for pair in pairs]),
        "retained": retained(pairs),
        "speedup": statistics.median(speedups) if speedups else None,
        "behaviour": [behaviour(pair) for pair in pairs],
        "seeds": [entry(run / stage) for run in runs],
        "scores": [{name: METRICS[name](pair.labels, pair.compressed) for name in GERMEVAL_METRICS} for pair in pairs],
    }


def entry(stage: Path) -> dict[str, Any]:
    read = read_entry(stage)
    training = read.details.training
    assert training is not None
    return {
        "parameters": read.cost.parameters,
        "size_bytes": read.cost.size_bytes,
        "train_seconds": read.train_seconds,
        "development_scores": read.development_scores,
        "redraws": read.details.redraws,
        **{key: getattr(training, key) for key in ("steps", "best_step", "precision")},
    }


def final_of(run: Path) -> Final:
    final = finished(run).final
    assert final is not None
    return final


def scored(labels: list[Array], logits: list[Floats]) -> dict[str, Any]:
    return score_interval(labels, logits, "macro_f1", RESAMPLES).model_dump()


def retained(pairs: list[Pair]) -> dict[str, Any]:
    interval = retained_performance(pairs, "macro_f1", RESAMPLES)
    assert interval is not None
    return interval.model_dump()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--data", type=Path, default=SHARED / "data/germeval2018")
    parser.add_argument("--model", type=Path, default=TOKENIZER)
    arguments = parser.parse_args()
    run_all(arguments.seeds, arguments.data, arguments.model)
    print(json.dumps(collect(arguments.seeds)))


if __name__ == "__main__":
    main()
