"""Each family of methods alone, in pairs and in chains, on one pretrained encoder: what adds up and what does not.

The encoder is fine-tuned once a seed (as in shrink_encoders.py, whose folder is used again), then compressed in every
way of `WAYS`, with settings that are the same wherever a family takes part. Nothing is chosen, so all of them are
scored on the rows that are held back; all artefacts of a seed are timed in turns. What other tools make of the same
model takes part: OpenVINO in fp32, ONNX Runtime's dynamic int8, NNCF's static int8 and its accuracy control. Everything
resumes in the work folder.

The last line is one JSON document:

- ways.NAME: families, score and points lost (of macro-F1 × 100), retained with its interval, chance-corrected, speed-up
  over the original in ONNX Runtime fp32 and in torch eager fp32, size of the artefact, minutes of compression
- interactions.NAME: points lost together minus the points that its parts (`parts_of`) lose alone, with a paired
  interval that draws seeds, then rows; and its speed-up divided by the product of theirs

Usage: python benchmarks/combinations.py e5-small|minilm-l6|mpnet-base [--models FOLDER] [--work FOLDER]
         [--seeds 0 1 2] [--epochs 2]

Run it alone: it measures time.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peer_nncf import accuracy_controlled
from plankwise.core.files import folder_bytes
from plankwise.core.hardware import INT8_FLAGS, environment
from plankwise.core.recipe import validate
from plankwise.data.task import TEST, TRAIN, Task
from plankwise.evaluation.benchmark.paired_timing import PairedTiming
from plankwise.evaluation.comparison import Pair, chance_corrected, retained_performance
from plankwise.evaluation.intervals import interval_of, resampled_scores
from plankwise.evaluation.metrics import METRICS, Floats, majority_logits
from plankwise.run.recipe import Recipe
from plankwise.search.budget.candidate import Candidate, Steps
from plankwise.search.budget.evaluation import Evaluator
from shrink_encoders import EXPERIMENTS, fine_tuned, parser_of_encoders

METRIC, RESAMPLES = "macro_f1", 2000
ORT, TORCH = "ONNX Runtime fp32", "torch eager fp32"
TEACHER = {"source": "baseline", "task": 0.3, "logits": 0.7}
PRUNED = {"method": "pruning", "target": 2.0}
VOCABULARY = {"method": "vocabulary"}
# Families: V vocabulary, T module replacing (Theseus), D distillation, P structured pruning, Q static int8.
WAYS: dict[str, str] = {
    "original": "",
    "vocabulary": "V",
    "int8": "Q",
    "pruning": "P",
    "Theseus": "T",
    "distillation": "D",
    "vocabulary, int8": "VQ",
    "pruning, int8": "PQ",
    "pruning with distillation": "PD",
    "Theseus with distillation": "TD",
    "Theseus, pruning": "TP",
    "Theseus, int8": "TQ",
    "distillation, int8": "DQ",
    "Theseus, pruning, int8": "TPQ",
    "Theseus with distillation, pruning": "TDP",
    "Theseus with distillation, pruning, int8": "TDPQ",
    "all": "VTDPQ",
}
PEERS = {
    "OpenVINO fp32": ("openvino", "fp32"),
    "ONNX Runtime dynamic int8": ("onnx", "int8-dynamic"),
    "NNCF static int8": ("openvino", "int8"),
}
CONTROLLED = "NNCF accuracy control"  # of the artefact in OpenVINO fp32


def steps_of(families: str, layers: int, epochs: float, rate: float) -> Steps:
    """Return the steps of a combination; the order is vocabulary, depth, width."""
    training = {"epochs": epochs, "learning_rate": rate}
    depth: dict[str, Any] = {}
    if "T" in families:
        depth = {"method": "theseus", "modules": layers // 2, "training": training}
    elif "D" in families and "P" not in families:
        student = {"layers": layers // 2, "keep": "bottom"}
        depth = {"method": "distillation", "student": student, "training": training, "teacher": TEACHER}
    pruned: dict[str, Any] = dict(PRUNED)
    if "D" in families and "T" in families:
        depth["teacher"] = TEACHER
    elif "D" in families and "P" in families:
        pruned |= {"training": {**training, "epochs": epochs / 2}, "teacher": TEACHER}
    steps = [VOCABULARY if "V" in families else None, depth or None, pruned if "P" in families else None]
    return tuple(each for each in steps if each is not None)


def candidates(layers: int, epochs: float, rate: float) -> dict[str, Candidate]:
    """Return everything that is made: int8 in the runtime that has fast kernels on this processor, fp32 in another."""
    flags = set((environment()["cpu"] or {}).get("flags") or ())
    int8 = "openvino" if flags & set(INT8_FLAGS) else "onnx"
    made = {}
    for name, families in WAYS.items():
        runtime, precision = (int8, "int8") if "Q" in families else ("onnx", "fp32")
        steps = steps_of(families, layers, epochs, rate)
        made[name] = Candidate(name=name, rung="fixed", steps=steps, runtime=runtime, precision=precision)  # type: ignore[arg-type]
    for name, (runtime, precision) in PEERS.items():
        made[name] = Candidate(name=name, rung="peer", runtime=runtime, precision=precision)  # type: ignore[arg-type]
    return made


class Seed:
    """All combinations of one seed: made, predicted and timed, in one folder.

    Args:
        encoder: name.
        original: folder of the fine-tuned model.
        task: with its rows held back.
        out: folder.
        seed: of the trainings.
    """

    def __init__(self, encoder: str, original: Path, task: Task, out: Path, seed: int) -> None:
        made = EXPERIMENTS[encoder]
        model = {"source": str(original), "max_length": made.max_length}
        plain: dict[str, Any] = {"name": encoder, "task": made.on(out), "model": model, "baseline": None, "seed": seed}
        self.task, self._out = task, out
        self._evaluator = Evaluator(validate(plain, Recipe), task, out)

    def run(self, made: Mapping[str, Candidate]) -> dict[str, Any]:
        """Make everything that is missing; return logits, seconds and sizes by name, and the timing of all."""
        found: dict[str, Any] = {name: self._one(candidate) for name, candidate in made.items()}
        found[CONTROLLED] = self._controlled(found["OpenVINO fp32"])
        folders = {ORT: found["original"]["folder"], TORCH: self._evaluator.model(())[0]}
        folders |= {name: each["folder"] for name, each in found.items() if name != "original"}
        return {"found": found, "timed": self._timed(folders)}

    def _one(self, candidate: Candidate) -> dict[str, Any]:
        model, record = self._evaluator.model(candidate.steps)
        artefact = self._evaluator.artefact(candidate, model)
        logging.getLogger("plankwise").info("%s is made", candidate.name)
        return {
            **self._predicted(artefact),
            "seconds": sum(step.train_seconds for step in record.steps),
            "parameters": (record.steps[-1] if record.steps else record.baseline).cost.parameters,  # type: ignore[union-attr]
        }

    def _controlled(self, plain: Mapping[str, Any]) -> dict[str, Any]:
        begun = time.perf_counter()
        model, out = self._evaluator.model(())[0], self._out / "accuracy-control"
        artefact = accuracy_controlled(model, plain["folder"], self.task, METRIC, out)
        seconds = time.perf_counter() - begun
        return {**self._predicted(artefact), "seconds": seconds, "parameters": plain["parameters"]}

    def _predicted(self, artefact: Path) -> dict[str, Any]:
        stored = self._out / "logits" / f"{artefact.name}.npy"
        if not stored.exists():
            stored.parent.mkdir(exist_ok=True)
            np.save(stored, self._evaluator.logits(artefact, TEST))
        size = folder_bytes(artefact)
        return {"folder": artefact, "logits": np.load(stored), "size_bytes": size}

    def _timed(self, folders: Mapping[str, Path]) -> Mapping[str, PairedTiming]:
        return self._evaluator.time(folders, TEST)


def lost(runs: Sequence[tuple[Any, Floats, Floats]]) -> Floats:
    """Return the points that were lost on each resample, [resamples]; the same resamples in every call.

    Args:
        runs: labels, logits of the original and of the compressed model, of each seed.
    """
    old = resampled_scores([(labels, before) for labels, before, _ in runs], METRIC, RESAMPLES, 0)
    new = resampled_scores([(labels, after) for labels, _, after in runs], METRIC, RESAMPLES, 0)
    return 100 * (old - new)


def points(runs: Sequence[tuple[Any, Floats, Floats]]) -> float:
    scores = [METRICS[METRIC](labels, old) - METRICS[METRIC](labels, new) for labels, old, new in runs]
    return 100 * statistics.mean(scores)


class Tables:
    """The tables, computed from what was measured of every seed.

    Args:
        seeds: what `Seed.run` returned.
        task: with its rows held back.
    """

    def __init__(self, seeds: Sequence[dict[str, Any]], task: Task) -> None:
        self._seeds, self.labels = seeds, np.asarray(task.splits[TEST]["label"][:])
        guess = majority_logits(self.labels, np.asarray(task.splits[TRAIN]["label"][:]))
        self.majority = METRICS[METRIC](self.labels, guess)

    def way(self, name: str) -> dict[str, Any]:
        """Compute a line of the table of ways."""
        runs, found = self._runs(name), [each["found"][name] for each in self._seeds]
        score, before = (statistics.mean(METRICS[METRIC](self.labels, each[at]) for each in runs) for at in (2, 1))
        kept = retained_performance([Pair(*each) for each in runs], METRIC, RESAMPLES)
        return {
            "families": WAYS.get(name, "peer"),
            "score": score,
            "points_lost": interval_of(points(runs), lost(runs)).model_dump(),
            "retained": None if kept is None else kept.model_dump(),
            "chance_corrected": chance_corrected(score, before, self.majority),
            "speedup": {reference: self._speed(name, reference) for reference in (ORT, TORCH)},
            "size_bytes": found[0]["size_bytes"],
            "parameters": found[0]["parameters"],
            "minutes": statistics.mean(each["seconds"] for each in found) / 60,
        }

    def interaction(self, name: str, parts: Sequence[str]) -> dict[str, Any]:
        """Compare a combination with the ways that are its parts."""
        alone = [self._runs(part) for part in parts]
        value = points(self._runs(name)) - sum(map(points, alone))
        product = float(np.prod([self._speed(part, ORT) for part in parts]))
        return {
            "points": interval_of(value, lost(self._runs(name)) - sum(map(lost, alone))).model_dump(),
            "speedup_over_product": self._speed(name, ORT) / product,
        }

    def _runs(self, name: str) -> list[tuple[Any, Floats, Floats]]:
        found = [each["found"] for each in self._seeds]
        return [(self.labels, each["original"]["logits"], each[name]["logits"]) for each in found]

    def _speed(self, name: str, reference: str) -> float:
        title = ORT if name == "original" else name
        ratios = [each["timed"][title].over(each["timed"][reference]).value for each in self._seeds]
        return float(statistics.median(ratios))


def parts_of(families: str) -> list[str]:
    """Return the ways that a combination consists of; none where no way makes the same cuts alone.

    Distillation alone halves the depth, as Theseus does, and beside pruning it is a recovery: neither adds up with it.
    """
    if families in ("TD", "PD"):
        return []
    parts = ["TD", *families.replace("TD", "")] if "TD" in families else list(families)
    named = {families: name for name, families in WAYS.items()}
    return [named[each] for each in parts] if len(parts) > 1 else []


def document(encoder: str, seeds: Sequence[dict[str, Any]], task: Task, numbers: Sequence[int]) -> dict[str, Any]:
    """Compute everything that is printed."""
    tables = Tables(seeds, task)
    combined = {name: parts for name, families in WAYS.items() if (parts := parts_of(families))}
    return {
        "encoder": encoder,
        "task": task.name,
        "seeds": list(numbers),
        "test_rows": len(tables.labels),
        "majority": tables.majority,
        "ways": {name: tables.way(name) for name in (*WAYS, *PEERS, CONTROLLED)},
        "interactions": {name: tables.interaction(name, parts) for name, parts in combined.items()},
        "warnings": sorted({each for seed in seeds for one in seed["timed"].values() for each in one.warnings}),
        "environment": environment(),
    }


def main() -> None:
    """Make what is missing and print everything."""
    parser = parser_of_encoders(__doc__)
    parser.add_argument("--epochs", type=float, default=2.0)
    given = parser.parse_args()
    measured = []
    for seed in given.seeds:
        folder = given.work / given.encoder / f"seed-{seed}"
        original, task = fine_tuned(given.encoder, given.models, folder, seed)
        layers = json.loads((original / "config.json").read_text("utf-8"))["num_hidden_layers"]
        made = candidates(layers, given.epochs, float(EXPERIMENTS[given.encoder].baseline["learning_rate"]))
        measured.append(Seed(given.encoder, original, task, folder / "combinations", seed).run(made))
    print(json.dumps(document(given.encoder, measured, task, given.seeds)))


if __name__ == "__main__":
    main()
