"""The thesis' experiment on a pretrained encoder, one seed at a time, merged with the seeds that were made before.

Each seed has language models of its own, so that intervals over seeds hold what training these adds. What a seed leaves
is small: the records and logits of its runs, in results/CLASS/runs/NAME/. All of it is computed from these again when a
seed is added. Models stay in the work folder, and a run that was killed resumes there. The last line is one JSON
document.

Usage: python benchmarks/domain_encoders.py domain_e5|domain_minilm --seed N [--work FOLDER] [--set KEY=VALUE]...

The models come from `python ../shared/models/get.py --out runs/models`. Run it alone: it measures time.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plankwise.core.hardware import environment
from plankwise.core.records import FILE_NAME
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.saved_predictions import PREDICTIONS, read_predictions, save_predictions
from plankwise.report.domain_table import summarize
from plankwise.run.domain.experiment import LANGUAGE_MODEL, TABLE, run_domain, run_folder
from plankwise.run.domain.plan import check_domain
from plankwise.run.domain.settings import LARGE, read_domain
from results import RESULTS, ROOT, machine_class, parser_of_seed

RECIPES = ("domain_e5", "domain_minilm")


def main() -> None:
    """Run one seed, keep what it leaves, and print what all seeds say together."""
    parser = parser_of_seed(__doc__)
    parser.add_argument("recipe", choices=RECIPES)
    given = parser.parse_args()
    path = ROOT / "recipes" / f"{given.recipe}.yaml"
    domain = read_domain(path, [*given.settings, f"seeds=[{given.seed}]"])
    plan = check_domain(path, domain, [f"seed={given.seed}"])
    out = given.work / f"{given.recipe}-{given.seed}"
    run_domain(plan, out, resume=True)
    kept = RESULTS / machine_class(environment()) / "runs" / given.recipe
    keep_seed(out, kept / f"seed-{given.seed}", plan.domain.name)
    print(json.dumps({**merged(kept), "minutes": plan.domain.minutes, "environment": environment()}))


def keep_seed(out: Path, target: Path, name: str) -> None:
    """Copy the records, the logits in single precision, and the table of one seed's experiment."""
    shutil.rmtree(target, ignore_errors=True)
    for record in sorted(out.glob(f"*/{FILE_NAME}")):
        folder = target / record.parent.name
        folder.mkdir(parents=True)
        shutil.copy(record, folder)
        if (record.parent / PREDICTIONS).is_file():
            ids, pair = read_predictions(record.parent)
            logits: list[Any] = [each.astype(np.float32) for each in (pair.baseline, pair.compressed)]
            save_predictions(folder / PREDICTIONS, ids, Pair(pair.labels, *logits))
    document = json.loads((out / TABLE).read_text("utf-8"))
    (target / TABLE).write_text(json.dumps({**document, "name": name}, indent=1) + "\n", encoding="utf-8")


def merged(kept: Path) -> dict[str, Any]:
    """Summarize all seeds that were kept; language models and times in other runtimes are those of the first.

    Raises:
        SystemExit: if seeds differ in their tasks or variants.
    """
    seeds = sorted(kept.glob("seed-*"))
    tables = [json.loads((seed / TABLE).read_text("utf-8")) for seed in seeds]
    shape = _shape(tables[0])
    odd = next((seed.name for seed, table in zip(seeds, tables, strict=True) if _shape(table) != shape), None)
    if odd is not None:
        sys.exit(f"{kept / odd} has other tasks or variants than {seeds[0].name}; remove one of them")
    tasks = {
        task: {
            variant: [run_folder(seed, task, variant, int(seed.name.removeprefix("seed-"))) for seed in seeds]
            for variant in variants
        }
        for task, variants in shape.items()
    }
    models = {LARGE: seeds[0] / LANGUAGE_MODEL}
    models |= {name: seeds[0] / f"{LANGUAGE_MODEL}-{name}" for name in tables[0]["language_models"]}
    document = summarize(tables[0]["name"], models, tasks)
    for task, row in document["tasks"].items():
        row["runtimes"] = tables[0]["tasks"][task]["runtimes"]
    return {**document, "preparation": tables[0]["preparation"]}


def _shape(table: dict[str, Any]) -> dict[str, Sequence[str]]:
    return {task: sorted(row["variants"]) for task, row in table["tasks"].items()}


if __name__ == "__main__":
    main()
