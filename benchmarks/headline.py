"""The README's table of headline results, from results/."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import encoder_tables
from results import RESULTS, describe, environment_of, machine_class, results_of
from score_tables import interval

PANELS = {"methods_germeval2018": "GermEval 2018", "methods_davidson2017": "Davidson 2017"}
ENCODERS = tuple(f"shrink_{encoder}" for encoder in encoder_tables.ENCODERS)
OTHERS = ("germeval2018", "domain_lm", "domain_lm_clinical", "quantization_germeval2018", "throughput")
SOURCES = (*ENCODERS, *PANELS, *OTHERS)
VARIANTS = {  # of methods.py, in the README's words
    "pruning-2x-repaired": "half the FLOPs pruned, no labels, no training",
    "pruning-3x-recovered": "two thirds of the FLOPs pruned, short training after",
    "distillation-logits": "12 → 3 layers, distilled",
}


def fastest(name: str, root: Path = RESULTS) -> dict[str, Any]:
    """Return a result of the fastest class of machine that has it; empty if no machine has."""
    return next(iter(results_of(name, root).values()), {})


def headline(root: Path = RESULTS) -> str:
    """Write one row for each headline result, from the fastest class of machine."""
    encoders = encoder_rows(root)
    speeds = [] if encoders else runtime_rows(root)  # of random weights, where no trained ones were timed
    rows = [*encoders, *method_rows(root), *domain_rows(root), *int8_rows(root), *speeds]
    lines = [
        "| what | data | retained [95 %] | × torch eager | × ONNX Runtime fp32 | more |",
        "| --- | --- | ---: | ---: | ---: | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    machines = sorted({describe(environment_of(fastest(name, root))) for name in SOURCES if fastest(name, root)})
    return "\n".join([*lines, "", f"Measured on {'; on '.join(machines)}."])


def row(what: str, data: str, more: str, **figures: str) -> list[str]:
    """Return the cells of a row; figures are `retained`, `eager` and `onnx`, empty where nothing was measured."""
    cells = [figures.get(name, "") for name in ("retained", "eager", "onnx")]
    return [what, data, *cells, f"[{more}](docs/results/{more}.md)"]


def encoder_rows(root: Path) -> list[list[str]]:
    """Write a row for each ready recipe of each pretrained encoder."""
    rows = []
    for source in ENCODERS:
        result = fastest(source, root)
        for recipe in dict.fromkeys(each["recipe"] for each in result.get("runs", ())):
            runs = [each for each in result["runs"] if each["recipe"] == recipe]
            kept = result["retained_over_seeds"].get(recipe) or runs[0]["retained"]
            eager, onnx = (
                f"{statistics.median(each['speedup'][name]['value'] for each in runs):.2f}"
                for name in ("torch fp32", "ONNX Runtime fp32")
            )
            what = f"{result['encoder']}, `shrink --recipe {recipe}`, on {machine_class(environment_of(result))}"
            rows.append(row(what, result["task"], "encoders", retained=interval(kept), eager=eager, onnx=onnx))
    return rows


def method_rows(root: Path) -> list[list[str]]:
    rows = []
    for source, data in PANELS.items():
        for name, what in VARIANTS.items():
            each = fastest(source, root).get("variants", {}).get(name)
            if each and each["timing"]:
                faster = f"{each['timing']['speedup']:.2f}"
                rows.append(row(what, data, "methods", retained=interval(each["retained"]), eager=faster))
    theseus = fastest("germeval2018", root).get("variants", {}).get("theseus")
    if theseus:
        kept, faster = interval(theseus["retained"]), f"{theseus['speedup']:.2f}"
        rows.append(row("12 → 6 layers, Theseus", "GermEval 2018", "theseus", retained=kept, eager=faster))
    return rows


def domain_rows(root: Path) -> list[list[str]]:
    what = "language model halved once, then fine-tuned"
    tasks = [
        task
        for source in ("domain_lm", "domain_lm_clinical")
        for task in fastest(source, root).get("tasks", {}).items()
    ]
    return [
        row(
            what,
            name,
            "language-models",
            retained=interval(task["retained"]),
            eager=f"{task['prediction_speedup']['median']:.2f}",
        )
        for name, task in tasks
    ]


def int8_rows(root: Path) -> list[list[str]]:
    parents = fastest("quantization_germeval2018", root).get("parents", {})
    return [
        row(f"{name}, static int8", "GermEval 2018", "int8", retained=interval(variants["static int8"]["retained"]))
        for name, variants in parents.items()
    ]


def runtime_rows(root: Path) -> list[list[str]]:
    result = fastest("throughput", root)
    rows = []
    for model, what in {"bert12": "12 layers", "bert6-pruned": "6 layers, pruned"}.items():
        each = result.get(model, {}).get("openvino-int8")
        if each:
            eager, onnx = f"{each['over_eager']:.2f}", f"{each['over_onnxruntime_fp32']:.2f}"
            rows.append(
                row(f"BERT-base, random weights, {what}, OpenVINO int8", "tweets", "speed", eager=eager, onnx=onnx)
            )
    return rows
