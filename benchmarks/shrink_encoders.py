"""The ready recipes of `plankwise shrink` on pretrained encoders: what is kept, how fast, how small.

For each seed the encoder is fine-tuned as a user would have done it; then each ready recipe gets the training texts,
for `fast` without their labels, and as `--test` the rows that the encoder never saw. Everything resumes in the work
folder, and runs that are stored for this class of machine already are kept: seeds may be made one by one. The last line
is one JSON document: a row for each run, and for each recipe what is retained on average over the seeds.

Usage: python benchmarks/shrink_encoders.py e5-small|minilm-l6|mpnet-base|minilm-l6-sts|e5-small-sts
         [--models FOLDER] [--work FOLDER] [--seeds 0 1 2] [--recipes fast balanced extreme] [--time 60m]

The models come from `python ../shared/models/get.py --out FOLDER`. Run it alone: it measures time.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plankwise.core.hardware import environment
from plankwise.core.recipe import validate
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN, Task
from plankwise.run.pipeline import check, run
from plankwise.run.recipe import Recipe
from plankwise.run.stages import BASELINE
from plankwise.search.shrink.clock import parse_duration
from plankwise.search.shrink.document import DOCUMENT, finished
from plankwise.search.shrink.request import ShrinkRequest
from plankwise.search.shrink.shrink import shrink
from results import RESULTS, ROOT, machine_class
from workbench import SHARED

RECIPES = ["fast", "balanced", "extreme"]
GERMEVAL = {"name": "germeval2018", "path": str(SHARED / "data/germeval2018")}
DAVIDSON = {
    "name": "table",
    "title": "Davidson 2017",
    "train": str(SHARED / "data/davidson2017/labeled_data.csv"),
    "text": "tweet",
    "label": "class",
    "labels": {"0": "hate", "1": "offensive", "2": "neither"},
    "test_share": 0.5,  # the rare class has 6 %: a score on few of them would say little
    "deduplicate": True,
}
SIMILARITY = {"name": "table", "text": "sentence1", "text_pair": "sentence2", "score": "similarity"}


@dataclass(frozen=True)
class Experiment:
    """One encoder on one task: settings of the recipe."""

    encoder: str
    task: dict[str, Any]
    max_length: int
    baseline: dict[str, Any]
    stsb: str | None = None

    def on(self, folder: Path) -> dict[str, Any]:
        """Return the settings of the task; files of the STS benchmark get the header that they lack, in `folder`."""
        if self.stsb is None:
            return self.task
        files = {part: folder / f"stsb-{self.stsb}-{part}.csv" for part in ("train", "dev", "test")}
        folder.mkdir(parents=True, exist_ok=True)
        for path in files.values():
            text = (SHARED / "data/stsb" / path.name).read_text("utf-8")
            path.write_text(f"sentence1,sentence2,similarity\n{text}", "utf-8")
        named = {"train": files["train"], "development": files["dev"], "test": files["test"]}
        return {**self.task, **{part: str(path) for part, path in named.items()}}


EXPERIMENTS = {
    "e5-small": Experiment("e5-small", GERMEVAL, 128, {"epochs": 3, "learning_rate": 1e-4}),
    "minilm-l6": Experiment("minilm-l6", DAVIDSON, 96, {"epochs": 3, "learning_rate": 1e-4}),
    # A step costs seven times one of minilm-l6: a stratified quarter of the rows is for training.
    "mpnet-base": Experiment("mpnet-base", {**DAVIDSON, "test_share": 0.75}, 96, {"epochs": 2, "learning_rate": 5e-5}),
    "minilm-l6-sts": Experiment(
        "minilm-l6", {**SIMILARITY, "title": "STS benchmark, en"}, 128, {"epochs": 4, "learning_rate": 1e-4}, "en"
    ),
    "e5-small-sts": Experiment(
        "e5-small", {**SIMILARITY, "title": "STS benchmark, de"}, 128, {"epochs": 4, "learning_rate": 1e-4}, "de"
    ),
}


def main() -> None:
    """Run what is missing and print everything."""
    parser = parser_of_encoders(__doc__)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--time", default="60m")
    given = parser.parse_args()
    work = given.work / given.encoder
    rows = []
    for seed in given.seeds:
        original, task = fine_tuned(given.encoder, given.models, work / f"seed-{seed}", seed)
        for recipe in given.recipes:
            out = work / f"seed-{seed}" / recipe
            rows.append({"recipe": recipe, "seed": seed, **shrunk(original, task, out, recipe, given.time)})
    runs = with_earlier(given.encoder, rows)
    found = {
        "encoder": given.encoder,
        "task": task.name,
        "original_bytes": size_of(original),
        "rows": rows[0]["rows"],
        "runs": runs,
        "retained_over_seeds": over_seeds(runs),
        "environment": environment(),
    }
    print(json.dumps(found))


def parser_of_encoders(module_doc: str | None) -> argparse.ArgumentParser:
    """Log what is done, and return a parser of what all benchmarks on these encoders ask for."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.ERROR)
    logging.getLogger("plankwise").setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=module_doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", choices=EXPERIMENTS)
    parser.add_argument("--models", type=Path, default=ROOT / "runs/models")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/shrink")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser


def size_of(folder: Path) -> int:
    """Return the bytes of a model's folder, weights and tokenizer."""
    return sum(each.stat().st_size for each in folder.iterdir() if each.suffix in (".safetensors", ".json"))


def fine_tuned(encoder: str, models: Path, out: Path, seed: int) -> tuple[Path, Task]:
    """Fine-tune an encoder, unless that was done before; return its folder and the task."""
    made = EXPERIMENTS[encoder]
    plain = {
        "name": encoder,
        "task": made.on(out.parent),
        "model": {"source": str(models / made.encoder), "max_length": made.max_length},
        "baseline": made.baseline,
        "seed": seed,
    }
    checked = check(validate(plain, Recipe))
    run(checked, out / "original", resume=True, until="baseline")
    return out / "original" / BASELINE, checked.task


def shrunk(original: Path, task: Task, out: Path, recipe: str, time: str) -> dict[str, Any]:
    """Make one ready recipe, and return its figures on the rows held back."""
    labelled = recipe != "fast"
    train = write(out.parent / f"train-{'labelled' if labelled else 'texts'}.csv", task, (TRAIN,), labelled=labelled)
    unseen = write(out.parent / "unseen.csv", task, (DEVELOPMENT, TEST), labelled=True)
    seconds = parse_duration(time)
    request = ShrinkRequest(model=str(original), data=(train,), test=(unseen,), out=out, recipe=recipe, seconds=seconds)
    known = finished(out, seconds) if (out / DOCUMENT).exists() else None
    document = known or shrink(request, resume=True)
    held_back, metric = document["held_back"], document["metric"]
    return {
        "goal": document["goal"],
        "met": document["verdict"]["met"],
        "steps": document["chosen"]["candidate"]["steps"],
        "artefact": document["chosen"]["candidate"]["name"],
        "rows": held_back["rows"],
        "original": held_back["original_scores"][metric],
        "score": held_back["scores"][metric],
        "retained": held_back["retained"][metric],
        "chance_corrected": held_back["chance_corrected"][metric],
        "agreement": held_back["behaviour"].get("label_loyalty", held_back["behaviour"].get("rank_correlation")),
        "speedup": held_back["speedup"],
        "size_bytes": document["chosen"]["size_bytes"],
        "minutes": document["spent_seconds"] / 60,
        "candidates": [summary(each) for each in document["candidates"]],
    }


def summary(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return what tables need of a candidate."""
    kept = ("scores", "retained", "agreement", "speedup", "size_bytes", "parameters", "train_seconds", "seconds")
    return {"name": outcome["candidate"]["name"], **{key: outcome[key] for key in kept}}


def write(path: Path, task: Task, parts: Sequence[str], *, labelled: bool) -> Path:
    """Write rows of some splits as a table, unless it is there."""
    if not path.exists():
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            pairs, scores = "text_pair" in task.splits[TRAIN].column_names, task.kind == "regression"
            texts = ["text", "text_pair"] if pairs else ["text"]
            table.writerow([*texts, "score" if scores else "label"] if labelled else texts)
            for part in parts:
                rows = task.splits[part]
                columns = [rows[name] for name in texts]
                for label, *cells in zip(rows["label"], *columns, strict=True):
                    known = label if scores else task.labels[label]
                    table.writerow([*cells, known] if labelled else cells)
    return path


def with_earlier(encoder: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the runs that are stored for this class of machine and were not made again."""
    stored = RESULTS / machine_class(environment()) / f"shrink_{encoder.replace('-', '_')}.json"
    earlier = json.loads(stored.read_text("utf-8"))["runs"] if stored.exists() else []
    mine = {(each["recipe"], each["seed"]) for each in rows}
    kept = [each for each in earlier if (each["recipe"], each["seed"]) not in mine]
    return sorted([*rows, *kept], key=lambda each: (RECIPES.index(each["recipe"]), each["seed"]))


def over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float] | None]:
    """Return, for each recipe, the mean over its seeds of what is retained, and of the bounds of its interval.

    The rows held back are the same for every seed: the interval of the mean is at most as wide as the mean interval.
    """
    keys, found = ("value", "low", "high"), {}
    for recipe in dict.fromkeys(each["recipe"] for each in runs):
        kept = [each["retained"] for each in runs if each["recipe"] == recipe]
        found[recipe] = {key: statistics.mean(each[key] for each in kept) for key in keys} if all(kept) else None
    return found


if __name__ == "__main__":
    main()
