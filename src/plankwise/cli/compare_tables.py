"""A comparison for the terminal: what a reader has to know first, then a table of metrics and one of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from plankwise.core.intervals import MISSING, format_interval

Found = Mapping[str, Any]


def comparison_lines(name: str, found: Found) -> list[str]:
    """Return the verdict in words, after whatever makes it worth nothing, and before what else changed.

    Args:
        name: of the compressed model.
        found: as `evidence.compare_pairs` returns it.
    """
    metric = next(iter(found["metrics"]))
    return [
        *_floor_lines(metric, found["metrics"][metric]),
        _verdict_line(name, metric, found["metrics"][metric], found),
        *_class_lines(found["classes"]),
        _behaviour_line(found),
        *_calibration_lines(found["calibration"]),
        *_slice_lines(found["slices"]),
    ]


def _floor_lines(metric: str, found: Found) -> list[str]:
    score = found["baseline"]["value"]
    return [
        f"the baseline is not shown to beat the {floor}: {metric} {score:.3f} against {each['score']:.3f}; what is "
        "kept of it says nothing"
        for floor, each in found["floors"].items()
        if not each["cleared"]
    ]


def _verdict_line(name: str, metric: str, found: Found, whole: Found) -> str:
    seeds = f", {whole['seeds']} seeds" if whole["seeds"] > 1 else ""
    line = (
        f"{name}: {found['verdict']} at a margin of {found['margin']:g} in {metric}: difference "
        f"{_interval(found['difference'], signed=True)} on {whole['rows']:,} examples{seeds}"
    )
    if found["verdict"] != "cannot tell":
        return line
    more = found["more_examples"]
    if more is None:
        return f"{line}; the loss found is itself beyond the margin, which more examples would not change"
    return f"{line}; about {more:,} more examples would show it, if the difference stays what it is"


def _class_lines(classes: list[Found]) -> list[str]:
    lines = []
    for verdict in ("inferior", "cannot tell"):
        names = [each["class"] for each in classes if each["verdict"] == verdict]
        if names:
            lines.append(f"F1 of single classes, {verdict} at a margin of {classes[0]['margin']:g}: {', '.join(names)}")
    return lines


def _behaviour_line(found: Found) -> str:
    kept, floor = found["behaviour"], found["retraining_floor"]
    if "rank_correlation" in kept:
        line = (
            f"scores change by {kept['mean_change']:.3f} standard deviations on average, {kept['largest_change']:.2f} "
            f"at most; rank correlation with the baseline: {kept['rank_correlation']:.3f}"
        )
        return line if floor is None else f"{line}; of the baseline trained again: {floor['rank_correlation']:.3f}"
    line = (
        f"{kept['negative_flip_rate']:.1%} of all answers became wrong and {kept['positive_flip_rate']:.1%} right; "
        f"same answer as the baseline: {kept['label_loyalty']:.1%}"
    )
    if floor is None:
        return line
    return f"{line}; the baseline trained again: {floor['negative_flip_rate']:.1%} became wrong"


def _calibration_lines(found: Found | None) -> list[str]:
    if found is None:  # scores are not probabilities
        return []
    sides = [f"{side} {each['ece']:.3f} ({each['ece_scaled']:.3f} scaled)" for side, each in found.items()]
    return [f"calibration error: {', '.join(sides)}"]


def _slice_lines(slices: list[Found]) -> list[str]:
    return [
        f"lost more than the whole: {each['by']} {each['slice']}, {each['rows']:,} examples, {each['measure']} "
        f"{_interval(each['difference'], signed=True)}"
        for each in slices
        if each["flagged"]
    ]


def comparison_tables(found: Found) -> list[Table]:
    """Return the table of metrics and, where there are classes, that of these."""
    metrics = Table(title="metrics", title_justify="left")
    for column in ("", "baseline", "compressed", "difference", "retained", "above chance", "p, Holm", "verdict"):
        metrics.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, each in found["metrics"].items():
        scores = [f"{each[side]['value']:.3f}" for side in ("baseline", "compressed")]
        kept = [_interval(each[side]) for side in ("retained", "chance_corrected")]
        difference = _interval(each["difference"], signed=True)
        metrics.add_row(name, *scores, difference, *kept, f"{each['p_holm']:.3f}", each["verdict"])
    floors = [
        ", ".join([floor, *(f"{name} {each['floors'][floor]['score']:.3f}" for name, each in found["metrics"].items())])
        for floor in next(iter(found["metrics"].values()))["floors"]
    ]
    metrics.caption = "; ".join(floors) or None
    if not found["classes"]:
        return [metrics]
    classes = Table(title="F1 of classes", title_justify="left")
    for column in ("class", "examples", "baseline", "compressed", "difference", "verdict"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    for each in found["classes"]:
        scores = [f"{each[side]:.3f}" for side in ("baseline", "compressed")]
        difference = _interval(each["difference"], signed=True)
        classes.add_row(each["class"], str(each["rows"]), *scores, difference, each["verdict"])
    return [metrics, classes]


def _interval(value: Mapping[str, float] | None, *, signed: bool = False) -> str:
    return MISSING if value is None else format_interval(value["value"], value["low"], value["high"], signed=signed)
