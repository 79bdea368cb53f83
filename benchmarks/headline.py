"""The README's table of headline results and its picture, speed against retained score; both come from results/."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import encoder_tables
from results import RESULTS, ROOT, describe, environment_of, machine_class, results_of
from score_tables import interval

PICTURE = ROOT / "docs" / "results" / "speed_vs_retained.svg"
PANELS = {"methods_germeval2018": "GermEval 2018", "methods_davidson2017": "Davidson 2017"}
# A variant belongs to the first family whose pattern its name matches.
FAMILIES = {
    "keep 3 layers": r"layer-subset",
    "distillation": r"distillation-",
    "Theseus": r"theseus",
    "pruning, cut": r"pruning-.*-cut",
    "pruning, reconstructed": r"pruning-.*-repaired",
    "pruning, trained after": r"pruning-.*-recovered",
    "unstructured": r"unstructured-",
    "vocabulary": r"vocabulary",
}
MARKERS = "os^vDPXh"
ENCODERS = tuple(f"shrink_{encoder}" for encoder in encoder_tables.ENCODERS)
OTHERS = ("germeval2018", "domain_lm", "domain_lm_clinical", "quantization_germeval2018", "throughput")
SOURCES = (*ENCODERS, *PANELS, *OTHERS)
VARIANTS = {  # of methods.py, in the README's words
    "pruning-2x-repaired": "half the FLOPs pruned, no labels, no training",
    "pruning-3x-recovered": "two thirds of the FLOPs pruned, short training after",
    "distillation-logits": "12 → 3 layers, distilled",
}


@dataclass(frozen=True)
class Point:
    """One compressed model: its speed-up over the baseline, and the share of the score that it retains."""

    panel: str
    family: str
    faster: float
    retained: float
    low: float
    high: float


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


def points(root: Path = RESULTS) -> list[Point]:
    """Collect every variant that was timed, in the order of its results."""
    return [
        Point(
            title,
            next(family for family, pattern in FAMILIES.items() if re.match(pattern, name)),
            each["timing"]["speedup"],
            *(each["retained"][key] for key in ("value", "low", "high")),
        )
        for source, title in PANELS.items()
        for name, each in fastest(source, root).get("variants", {}).items()
        if each["timing"] and each["retained"]
    ]


def digest(drawn: list[Point]) -> str:
    """Hash points. The picture holds the hash, since Matplotlib's versions do not draw the same bytes."""
    return hashlib.sha256(json.dumps([asdict(point) for point in drawn]).encode()).hexdigest()


def is_current(picture: Path = PICTURE, root: Path = RESULTS) -> bool:
    """Return whether a picture was drawn from what `root` holds now."""
    return picture.exists() and digest(points(root)) in picture.read_text("utf-8")


def draw(picture: Path = PICTURE, root: Path = RESULTS) -> None:
    """Draw speed-up against retained score, one panel per task, as SVG."""
    import matplotlib as mpl  # takes a second to import, and --check does not need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn = points(root)
    mpl.rcParams.update({"svg.hashsalt": "plankwise", "font.size": 9})
    figure, axes = plt.subplots(1, len(PANELS), figsize=(9.6, 3.8), sharey=True, layout="constrained")
    for axis, title in zip(axes, PANELS.values(), strict=True):
        for number, (family, marker) in enumerate(zip(FAMILIES, MARKERS, strict=True)):
            chosen = [point for point in drawn if (point.panel, point.family) == (title, family)]
            axis.errorbar(
                [point.faster for point in chosen],
                [point.retained for point in chosen],
                yerr=[
                    [point.retained - point.low for point in chosen],
                    [point.high - point.retained for point in chosen],
                ],
                fmt=marker,
                color=f"C{number}",
                label=family,
                markersize=5,
                elinewidth=0.8,
            )
        axis.axhline(1.0, color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=title, xlabel="times as fast as the 12-layer baseline")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("retained macro-F1, 95 % interval")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None, "Description": digest(drawn)})
    plt.close(figure)
