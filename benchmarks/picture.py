"""The README's picture, speed against retained score, from results/.

It shows the families of methods on pretrained encoders, alone and combined, beside what other tools make of the same
model and what `plankwise shrink` makes of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import encoder_tables
from results import RESULTS, ROOT, results_of, speed_rank

PICTURE = ROOT / "docs" / "results" / "speed_vs_retained.svg"
ONNX = "ONNX Runtime fp32"
OTHERS, READY = "other tools", "shrink --recipe"
PEERS = {  # in the picture
    "OpenVINO fp32": "OpenVINO",
    "ONNX Runtime dynamic int8": "ORT dynamic",
    "NNCF static int8": "NNCF",
    "NNCF accuracy control": "NNCF control",
}
AMOUNTS = {1: "one family", 2: "two families"}
CHAIN = "three or more"
ABREAST = 2  # panels
LETTERS = "V vocabulary\nT Theseus\nD distillation\nP pruning\nQ static int8"
MARKERS = "os^vD"


@dataclass(frozen=True)
class Point:
    """One compressed model: its speed-up over the baseline, and the share of the score that it retains."""

    panel: str
    family: str
    faster: float
    retained: float
    low: float
    high: float
    label: str


def points(root: Path = RESULTS) -> list[Point]:
    """Collect every way of compressing a pretrained encoder, and what the ready recipes made of it, by machine."""
    found = []
    for encoder in encoder_tables.ENCODERS:
        ways, recipes = results_of(f"combinations_{encoder}", root), results_of(f"shrink_{encoder}", root)
        for machine in sorted({*ways, *recipes}, key=speed_rank):
            found += of_machine(ways.get(machine, {}), recipes.get(machine, {}), machine)
    return found


def of_machine(combined: Mapping[str, Any], ready: Mapping[str, Any], machine: str) -> list[Point]:
    """Collect what was measured of an encoder on one class of machine: speeds of two do not compare."""
    found = []
    for name, way in combined.get("ways", {}).items():
        if name != "original" and way["retained"]:
            place, beside = placed(combined, machine), label(name, way)
            found.append(Point(place, amount(way), way["speedup"][ONNX], *bounds(way["retained"]), beside))
    for run in ready.get("runs", ()):
        if run["retained"]:
            faster = run["speedup"][ONNX]["value"]
            found.append(Point(placed(ready, machine), READY, faster, *bounds(run["retained"]), run["recipe"]))
    return found


def placed(result: Mapping[str, Any], machine: str) -> str:
    """Name the panel of an encoder on a class of machine."""
    return f"{result['encoder']}, {result['task']}, {machine}"


def bounds(kept: Mapping[str, float]) -> tuple[float, float, float]:
    """Return what is retained, and the ends of its interval."""
    return kept["value"], kept["low"], kept["high"]


def amount(way: Mapping[str, Any]) -> str:
    """Name how many families of methods took part."""
    return OTHERS if way["families"] == "peer" else AMOUNTS.get(len(way["families"]), CHAIN)


def label(name: str, way: Mapping[str, Any]) -> str:
    """Return what stands beside a point: the letters of its families, or a tool's short name."""
    return PEERS.get(name, name) if way["families"] == "peer" else str(way["families"])


def digest(drawn: list[Point]) -> str:
    """Hash points. The picture holds the hash, since Matplotlib's versions do not draw the same bytes."""
    return hashlib.sha256(json.dumps([asdict(each) for each in drawn]).encode()).hexdigest()


def is_current(picture: Path = PICTURE, root: Path = RESULTS) -> bool:
    """Return whether a picture was drawn from what `root` holds now."""
    return picture.exists() and digest(points(root)) in picture.read_text("utf-8")


def draw(picture: Path = PICTURE, root: Path = RESULTS) -> None:
    """Draw speed-up against retained score, one panel for each encoder and class of machine, as SVG."""
    import matplotlib as mpl  # takes a second to import, and --check does not need it

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn = points(root)
    panels = list(dict.fromkeys(each.panel for each in drawn))
    families = [*AMOUNTS.values(), CHAIN, OTHERS, READY]
    mpl.rcParams.update({"svg.hashsalt": "plankwise", "font.size": 9})
    columns = min(ABREAST, len(panels))
    rows = -(-len(panels) // columns)
    size = (9.6, 0.4 + 3.2 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharey=True, layout="constrained", squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, panel in zip(axes.flat, panels, strict=False):
        for number, family in enumerate(families):
            chosen = [each for each in drawn if (each.panel, each.family) == (panel, family)]
            draw_family(axis, chosen, family, number)
        axis.axhline(1.0, color="grey", linewidth=0.8, linestyle=":")
        axis.set_title(panel, fontsize=8)
        axis.set(xlabel=f"times as fast as the original in {ONNX}")
        axis.grid(alpha=0.25)
        axis.margins(x=0.15)  # for labels
        axis.set_xlim(left=0)
    for axis in axes[:, 0]:
        axis.set_ylabel("retained macro-F1, 95 % interval")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", title=LETTERS, frameon=False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None, "Description": digest(drawn)})
    plt.close(figure)


def draw_family(axis: Any, chosen: list[Point], family: str, number: int) -> None:
    """Draw the points of a family with their intervals and labels."""
    axis.errorbar(
        [point.faster for point in chosen],
        [point.retained for point in chosen],
        yerr=[[point.retained - point.low for point in chosen], [point.high - point.retained for point in chosen]],
        fmt=MARKERS[number],
        color=f"C{number}",
        label=family,
        markersize=5,
        elinewidth=0.8,
    )
    for at, point in enumerate(sorted(chosen, key=lambda each: each.faster)):
        beside = (4, 3 if at % 2 else -9)  # above and below in turns: neighbours would cover each other
        axis.annotate(point.label, (point.faster, point.retained), beside, textcoords="offset points", fontsize=7)
