"""Theseus' hyperparameters on a pretrained encoder, one seed at a time, merged with the seeds that were made before.

A seed leaves the table of its trials in results/CLASS/runs/study_theseus_e5/. Effects and findings are computed from
all of these again when a seed is added. The last line is one JSON document.

Usage: python benchmarks/study_encoders.py --seed N [--work FOLDER] [--set KEY=VALUE]...
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from plankwise.core.files import write_json
from plankwise.core.hardware import environment
from plankwise.evaluation.effects import main_effects, table_of
from plankwise.evaluation.noise import in_place_of_score, noise_of
from plankwise.search.study_plan import read_study
from plankwise.search.study_report import write_study
from plankwise.search.worker import run_study
from results import RESULTS, ROOT, machine_class, parser_of_seed
from theseus_findings import as_rows

NAME = "study_theseus_e5"
ALIKE = ("name", "task", "metric", "split", "sampler", "parameters", "settings")  # in the tables of all seeds


def main() -> None:
    """Run the trials of one seed, keep their table, and print what all seeds say together."""
    given = parser_of_seed(__doc__).parse_args()
    plan = read_study(ROOT / "recipes" / f"{NAME}.yaml", given.settings)
    plan = dataclasses.replace(plan, study=dataclasses.replace(plan.study, seeds=[given.seed]))
    out = given.work / f"{NAME}-{given.seed}"
    document = write_study(plan, run_study(plan, out, resume=True), out)
    kept = RESULTS / machine_class(environment()) / "runs" / NAME
    kept.mkdir(parents=True, exist_ok=True)
    write_json(kept / f"seed-{given.seed}.json", document)
    print(json.dumps({**merged(kept), "environment": environment()}))


def merged(kept: Path) -> dict[str, Any]:
    """Analyse the trials of all seeds together, as a study of several seeds would.

    Raises:
        ValueError: if seeds are of studies that differ.
    """
    documents = [json.loads(path.read_text("utf-8")) for path in sorted(kept.glob("seed-*.json"))]
    shared = [{key: each[key] for key in ALIKE} for each in documents]
    if any(each != shared[0] for each in shared):
        raise ValueError(f"{kept}: seeds are of studies that differ; remove those of the older one")
    trials = numbered([trial for each in documents for trial in each["trials"]])
    table = table_of(trials, shared[0]["parameters"])
    losses, upwards = in_place_of_score(table, "log_loss"), in_place_of_score(table, "log_loss", sign=-1.0)
    counts = {state: sum(each["counts"][state] for each in documents) for state in documents[0]["counts"]}
    return {
        **shared[0],
        "seeds": sorted({seed for each in documents for seed in each["seeds"]}),
        "counts": counts,
        "train_seconds": sum(each["train_seconds"] for each in documents),
        "effects": {key: [asdict(level) for level in main_effects(table, key)] for key in table.keys},
        "loss_effects": {}
        if losses is None
        else {key: [asdict(level) for level in main_effects(losses, key)] for key in table.keys},
        "noise": noise_of(table),
        "findings": as_rows(table),
        "findings_by_loss": None if upwards is None else as_rows(upwards),
        "trials": trials,
    }


def numbered(trials: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Number the trials of several studies from 0 on."""
    return [{**trial, "number": number} for number, trial in enumerate(trials)]


if __name__ == "__main__":
    main()
