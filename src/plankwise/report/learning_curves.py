"""Pictures of how the models of a run were trained: development scores, losses, replacement rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from plankwise.core.records import Entry, Record
from plankwise.report.svg import Point, curve_picture

Curves = Mapping[str, Sequence[Point]]
STEPS = "training step"


def learning_pictures(record: Record) -> list[Markup]:
    """Draw the curves that a record holds; trainings of a single point, and records of older versions, have none."""
    entries = [entry for entry in (record.baseline, *record.steps) if entry is not None]
    metric = record.task["metrics"][0]
    found = [
        _picture(_curves(entries, "history", "score"), f"development {metric}"),
        _picture(_curves(entries, "losses", "loss"), "loss"),
        *(_picture(_replacement(entry), f"replaced modules, {entry.name}", (0.0, 1.0)) for entry in entries),
    ]
    return [picture for picture in found if picture is not None]


def _curves(entries: Sequence[Entry], series: str, key: str) -> Curves:
    """Collect one series of each training that has at least two points of it."""
    trained = {entry.name: entry.details.training for entry in entries}
    points = {
        name: [(each["step"], each[key]) for each in getattr(log, series)]
        for name, log in trained.items()
        if log is not None
    }
    return {name: each for name, each in points.items() if len(each) > 1}


def _replacement(entry: Entry) -> Curves:
    drawn = entry.details.replacement or []
    if len(drawn) < 2:
        return {}
    names = {"scheduled rate": "rate", "share that was drawn": "replaced"}
    return {name: [(each["step"], each[key]) for each in drawn] for name, key in names.items()}


def _picture(curves: Curves, up: str, up_ends: Point | None = None) -> Markup | None:
    """Draw curves over the steps of training; without `up_ends` the vertical axis spans their values."""
    if not curves:
        return None
    values = [value for points in curves.values() for _, value in points]
    last = max(step for points in curves.values() for step, _ in points)
    spoken = "; ".join(f"{name}, from {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in curves.items())
    ends = (0.0, last), up_ends or _room(min(values), max(values))
    return curve_picture(curves, title=f"{up} over training: {spoken}", across=STEPS, up=up, ends=ends)


def _room(low: float, high: float) -> Point:
    """Return the ends of an axis, a flat curve in its middle."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)
