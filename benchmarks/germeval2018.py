"""GermEval 2018, 12 → 6 layers, over several seeds: Theseus against fine-tuning the bottom layers and the paper's preset.

Runs the recipes through the command line into runs/germeval2018/, going on where an earlier call stopped, and writes
results/germeval2018.json, from which the README's table is made (`make tables`). All variants of a seed share one baseline
and train for the same number of steps. The last line printed is one JSON object.

Usage: python benchmarks/germeval2018.py [--seeds 1 2 3] [--data FOLDER] [--model FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plankwise.core.files import write_json
from plankwise.core.records import read_record
from plankwise.study.compare import Pair, retained_performance
from plankwise.study.final import read_pair
from plankwise.study.report import table

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "germeval2018.yaml"
RUNS = ROOT / "runs" / "germeval2018"
TRAINING = "training: {epochs: 8, batch_size: 32, learning_rate: LR, evaluations_per_epoch: 2}"
VARIANTS = {
    "theseus": [],
    "bottom-6": [f"steps=[{{method: layer_subset, layers: 6, keep: bottom, {TRAINING.replace('LR', '1.5e-4')}}}]"],
    "theseus-paper": [f"steps=[{{method: theseus, preset: paper, modules: 6, {TRAINING.replace('LR', '3.0e-4')}}}]"],
}


def plankwise(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "plankwise", *map(str, arguments)], check=True)


def run_all(seeds: list[int], data: Path, model: Path) -> None:
    for seed in seeds:
        common = ["--seed", seed, "--resume", "--set", f"task.path={data}", "--set", f"model.source={model}"]
        plankwise("finetune", RECIPE, "--out", RUNS / f"baseline-{seed}", *common)
        for name, overrides in VARIANTS.items():
            sets = [part for each in [f"name={name}", *overrides] for part in ("--set", each)]
            baseline = RUNS / f"baseline-{seed}" / "baseline"
            plankwise("compress", RECIPE, "--baseline", baseline, "--out", RUNS / f"{name}-{seed}", *common, *sets)


def collect(seeds: list[int]) -> dict[str, Any]:
    runs = {name: [RUNS / f"{name}-{seed}" for seed in seeds] for name in VARIANTS}
    rows = table([run for paths in runs.values() for run in paths])
    records = {name: [read_record(run) for run in paths] for name, paths in runs.items()}
    per_seed = {
        name: [
            {
                "seed": record.seed,
                "baseline": record.baseline.scores if record.baseline else None,
                "scores": record.final.scores if record.final else None,
                "behaviour": record.final.behaviour if record.final else None,
                "train_seconds": record.steps[-1].train_seconds,
                "baseline_train_seconds": record.baseline.train_seconds if record.baseline else None,
                "steps": record.steps[-1].details["training"]["steps"],
                "redraws": record.steps[-1].details.get("redraws"),
            }
            for record in each
        ]
        for name, each in records.items()
    }
    first = records["theseus"][0]
    return {
        "rows": [
            {k: v.model_dump() if hasattr(v, "model_dump") else v for k, v in asdict(row).items()} for row in rows
        ],
        "theseus_over": {name: over(runs["theseus"], runs[name]) for name in VARIANTS if name != "theseus"},
        "majority": first.final.majority_scores if first.final else None,
        "per_seed": per_seed,
        "data_hashes": first.data_hashes,
        "environment": first.environment,
    }


def over(runs: list[Path], others: list[Path]) -> dict[str, float]:
    """Ratio of two compressed models' scores on the same examples, with the hierarchical paired interval."""
    pairs = [(read_pair(one)[1], read_pair(other)[1]) for one, other in zip(runs, others, strict=True)]
    joined = [Pair(one.labels, other.compressed, one.compressed) for one, other in pairs]
    return retained_performance(joined, "macro_f1", 2000).model_dump()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data/germeval2018")
    parser.add_argument("--model", type=Path, default=ROOT / "../shared/models/german-mini-12x128")
    arguments = parser.parse_args()
    run_all(arguments.seeds, arguments.data, arguments.model)
    result = collect(arguments.seeds)
    (ROOT / "results").mkdir(exist_ok=True)
    write_json(ROOT / "results" / "germeval2018.json", result)
    print(
        json.dumps(
            {
                row["name"]: {key: row[key] for key in ("baseline_score", "score", "retained", "speedup")}
                for row in result["rows"]
            }
            | {"theseus_over": result["theseus_over"]}
        )
    )


if __name__ == "__main__":
    main()
