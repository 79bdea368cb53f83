"""The front of a search: retained performance against speed, every candidate a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, LINE, PALE, CHOSEN = "#333333", "#2a6f97", "#c9c9c9", "#c1121f"


@dataclass(frozen=True)
class Point:
    """One candidate.

    Attributes:
        name: beside its point.
        speedup, speedup_low, speedup_high: over the reference.
        retained, retained_low, retained_high: of the original's score.
        on_front: whether no other candidate is better in both.
        chosen: whether it is the one that was chosen.
    """

    name: str
    speedup: float
    speedup_low: float
    speedup_high: float
    retained: float
    retained_low: float
    retained_high: float
    on_front: bool = False
    chosen: bool = False


def draw_front(
    points: Sequence[Point], path: Path, *, reference: str, metric: str, retain: float | None, speedup: float | None
) -> None:
    """Draw the candidates with their intervals as a PNG file.

    Args:
        points: the candidates.
        path: of the file.
        reference: what a speed-up refers to.
        metric: whose retained share is drawn.
        retain: the budget's share, as a line.
        speedup: the budget's speed-up, as a line.
    """
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axis = figure.subplots()
    if retain is not None:
        axis.axhline(retain, color=PALE, linewidth=1, linestyle="--", zorder=0)
    if speedup is not None:
        axis.axvline(speedup, color=PALE, linewidth=1, linestyle="--", zorder=0)
    for point in points:
        color = CHOSEN if point.chosen else LINE if point.on_front else PALE
        axis.plot([point.speedup] * 2, [point.retained_low, point.retained_high], color=color, linewidth=1, alpha=0.6)
        axis.plot([point.speedup_low, point.speedup_high], [point.retained] * 2, color=color, linewidth=1, alpha=0.6)
        axis.plot(point.speedup, point.retained, "o", color=color, markersize=5)
        if point.on_front or point.chosen:
            place = (point.speedup, point.retained)
            axis.annotate(point.name, place, (5, 5), textcoords="offset points", fontsize=7, color=INK)
    line = sorted((point.speedup, point.retained) for point in points if point.on_front)
    axis.plot([x for x, _ in line], [y for _, y in line], color=LINE, linewidth=0.8, zorder=0)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axis.set_xlabel(f"times as fast as the original in {reference}", fontsize=9, color=INK)
    axis.set_ylabel(f"retained {metric}", fontsize=9, color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=INK)
    FigureCanvasAgg(figure)  # draws without a display, and without pyplot's global state
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=130)
    temporary.replace(path)
