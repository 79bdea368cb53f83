"""What int8 costs in score: every way of quantizing, in the runtime that users get, on GermEval 2018.

Two models of each seed are quantized: the 12-layer baseline, and one that Theseus halved and pruning halved again.
Static and accuracy-aware int8 calibrate on training texts; quantization-aware training makes one pass over them, with
the 12-layer fp32 model as its teacher. Each result is exported, and the artefact predicts the test split. The last line
is one JSON document:

- parents.MODEL.fp32: score of the fp32 model in torch, over seeds
- parents.MODEL.VARIANT: score, difference in points (int8 minus fp32, mean and each seed), retained with its interval,
  loyalty (share of texts with the label that fp32 gives), probability_change (largest), size_bytes of the model's files
- recovered: share of what static int8 costs that quantization-aware training brings back, on the smaller model

Usage: python benchmarks/quantization.py [--seeds 1 2 3] [--epochs 1] [--threads 1] [--baselines FOLDER]
         [--smaller FOLDER] [--data FOLDER] [--model FOLDER] [--do smaller run collect]

`--baselines` names a folder with baseline-SEED/baseline as in methods.py; those that are missing are trained.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from method_variants import LOGITS, RECOVERY_RATE, STUDENT_RATE, Budget
from methods import BENCHES, Place, last_line, log_of, place_of, plankwise, recipe_of, train_baseline
from plankwise.core.files import folder_bytes, write_json
from plankwise.core.hardware import environment, fixed_threads
from plankwise.core.recipe import validate
from plankwise.data.task import TEST, TRAIN, Task
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import read_manifest
from plankwise.deploy.predictor import Predictor
from plankwise.encoder.checkpoint import load_trained, save
from plankwise.encoder.tokenizer import load_tokenizer
from plankwise.evaluation.comparison import Pair, behaviour, retained_performance
from plankwise.evaluation.metrics import METRICS, probabilities
from plankwise.methods.method import Job
from plankwise.methods.quantization import Quantization
from plankwise.training.distillation.config import DistillationConfig
from plankwise.training.fit import Training
from plankwise.training.objectives.registry import objective_of
from plankwise.training.prediction import predict
from results import ROOT, parser_of

RUNS = ROOT / "runs" / "quantization"
MARGIN, CALIBRATED, RESAMPLES, QAT_RATE = 0.002, 300, 4000, 5e-5
BASELINE, SMALLER = "12 layers", "6 layers, pruned 2×"
PLAIN = {  # exports of a model in fp32: runtime, precision
    "bf16": ("openvino", "bf16"),
    "dynamic int8": ("onnx", "int8-dynamic"),
    "static int8, NNCF": ("openvino", "int8"),
    "int8 weights": ("openvino", "int8-weights"),
    "int4 weights": ("openvino", "int4-weights"),
}
OWN = ("static int8", "accuracy-aware int8", "quantization-aware training")


def settings(name: str, epochs: float) -> Quantization:
    if name == "accuracy-aware int8":
        return Quantization(margin=MARGIN)
    if name == "static int8":
        return Quantization()
    training = Training(epochs=epochs, batch_size=32, learning_rate=QAT_RATE, evaluations_per_epoch=2)
    return Quantization(teacher=validate(LOGITS, DistillationConfig), training=training)


def smaller_model(place: Place, seed: int, folder: Path, epochs: float) -> Path:
    """Halve the depth and then the FLOPs of a model, by the command line, and return the folder of the result."""
    budget = Budget(epochs)
    theseus = {"method": "theseus", "modules": 6, "initialization": "bottom", "train_embeddings": True}
    pruning = {
        "method": "pruning",
        "target": 2.0,
        "labels": False,
        "examples": 1000,
        "reconstruction": True,
        "teacher": LOGITS,
    }
    steps = [
        {**theseus, "training": budget.training(STUDENT_RATE)},
        {**pruning, "training": budget.training(RECOVERY_RATE)},
    ]
    out = folder / f"smaller-{seed}"
    if not (out / "model").exists():
        sets = ["name=smaller", f"steps={json.dumps(steps)}", "evaluation.rounds=3", "evaluation.bootstrap=100"]
        said = [*place.common(seed), *(part for each in sets for part in ("--set", each))]
        whole = ["compress", str(place.bench.recipe), "--baseline", str(place.baseline(seed)), "--out", str(out)]
        if not plankwise([*whole, *said], log_of(out), place.threads):
            raise SystemExit(f"{out.name} failed: {last_line(log_of(out))}")
    return out / "model"


def quantized(parent: Path, baseline: Path, name: str, task: Task, place: Place, seed: int, epochs: float) -> Path:
    """Quantize a model, save it and return its folder."""
    out = RUNS / f"seed-{seed}" / parent.name / name.replace(" ", "-")
    if not out.exists():
        model, tokenizer = load_trained(str(parent)), load_tokenizer(str(parent))
        job = Job(
            task=task.without_test(),
            tokenizer=tokenizer,
            truncation=recipe_of(place).model.plain_truncation,
            objective=objective_of(task.kind),
            seed=seed,
            folder=out.with_name(f"{out.name}.work"),
            baseline=lambda: (load_trained(str(baseline)), load_tokenizer(str(baseline))),
        )
        made = settings(name, epochs).compress(model, job)
        for key, value in made.log.model_dump().items():
            print(f"  {key}: {value}"[:300], flush=True)
        save(made.model, made.tokenizer, out)
    return out


def answers(model: Path, to: str, precision: str, task: Task, place: Place, out: Path) -> dict[str, Any]:
    """Export a model and predict the test split with the artefact; return its logits and size."""
    if not out.exists():
        texts = list(task.splits[TRAIN].shuffle(seed=0)[:CALIBRATED]["text"])
        truncation = recipe_of(place).model.plain_truncation
        export(
            model,
            out,
            to=to,
            precision=precision,
            truncation=truncation,
            calibration=texts,
            texts=texts[:100],
            tolerance=1.0,
        )
    found = Predictor(out, threads=place.threads).logits(list(task.splits[TEST]["text"]))
    return {"logits": found.tolist(), "size_bytes": folder_bytes((out / read_manifest(out).model).parent)}


def run_seed(place: Place, seed: int, task: Task, smaller: Path, epochs: float) -> None:
    """Quantize both models of a seed in every way and save the logits of the artefacts."""
    baseline = place.baseline(seed)
    for parent in (baseline, smaller):
        folder = RUNS / f"seed-{seed}" / parent.name
        done = folder / "answers.json"
        if done.exists():
            continue
        reference = predict(
            load_trained(str(parent)), load_tokenizer(str(parent)), task, TEST, recipe_of(place).model.plain_truncation
        )
        found: dict[str, Any] = {"fp32": {"logits": reference.logits.tolist()}}
        for name, (to, precision) in PLAIN.items():
            place_of_artefact = folder / f"artefact-{name.replace(' ', '-')}"
            found[name] = answers(parent, to, precision, task, place, place_of_artefact)
            print(f"seed {seed}, {parent.name}: {name}", flush=True)
        for name in OWN:
            model = quantized(parent, baseline, name, task, place, seed, epochs)
            found[name] = answers(model, "openvino", "int8", task, place, model.with_name(f"artefact-{model.name}"))
            print(f"seed {seed}, {parent.name}: {name}", flush=True)
        write_json(done, found)


def collect(task: Task, seeds: list[int], epochs: float) -> dict[str, Any]:
    labels, metric = np.asarray(task.splits[TEST]["label"][:]), task.metrics[0]
    parents: dict[str, Any] = {}
    for title, folder in ((BASELINE, "baseline"), (SMALLER, "model")):
        read = [json.loads((RUNS / f"seed-{seed}" / folder / "answers.json").read_text()) for seed in seeds]
        old = [np.array(each["fp32"]["logits"]) for each in read]
        scores = [METRICS[metric](labels, logits) for logits in old]
        parents[title] = {"fp32": {"score": statistics.mean(scores), "scores": scores}}
        for name in (*PLAIN, *OWN):
            pairs = [Pair(labels, one, np.array(each[name]["logits"])) for one, each in zip(old, read, strict=True)]
            parents[title][name] = {**variant(pairs, metric), "size_bytes": read[0][name]["size_bytes"]}
    lost, kept = (parents[SMALLER][name]["difference"] for name in (OWN[0], OWN[2]))
    return {
        "task": "germeval2018",
        "metric": metric,
        "seeds": seeds,
        "margin": MARGIN,
        "calibration_texts": CALIBRATED,
        "training": {"epochs": epochs, "learning_rate": QAT_RATE},
        "parents": parents,
        "recovered": (kept - lost) / -lost if lost < 0 else None,
        "environment": environment(),
    }


def variant(pairs: list[Pair], metric: str) -> dict[str, Any]:
    """Compare the logits of one variant with those of fp32, over seeds."""
    scores = [METRICS[metric](pair.labels, pair.compressed) for pair in pairs]
    differences = [
        100 * (new - METRICS[metric](pair.labels, pair.baseline)) for new, pair in zip(scores, pairs, strict=True)
    ]
    changes = [
        float(np.abs(probabilities(pair.baseline, False) - probabilities(pair.compressed, False)).max())
        for pair in pairs
    ]
    retained = retained_performance(pairs, metric, RESAMPLES)
    return {
        "score": statistics.mean(scores),
        "difference": statistics.mean(differences),
        "differences": differences,
        "retained": retained.model_dump() if retained else None,
        "loyalty": statistics.mean(behaviour(pair)["label_loyalty"] for pair in pairs),
        "probability_change": max(changes),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--do", nargs="+", choices=["smaller", "run", "collect"], default=["smaller", "run", "collect"])
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--smaller", type=Path, default=RUNS, help="folder with smaller-SEED/model")
    for name in ("--data", "--model", "--baselines"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    place = place_of(BENCHES["germeval2018"], arguments)
    task = recipe_of(place).task.load()
    with fixed_threads(arguments.threads):
        for seed in arguments.seeds:
            if "smaller" in arguments.do and train_baseline(place, seed):
                smaller_model(place, seed, arguments.smaller, arguments.epochs)
            if "run" in arguments.do:
                run_seed(place, seed, task, arguments.smaller / f"smaller-{seed}" / "model", arguments.epochs)
    if "collect" in arguments.do:
        print(json.dumps(collect(task, arguments.seeds, arguments.epochs)))


if __name__ == "__main__":
    main()
