"""What the page of runs shows beside their records: comparison, confusion matrices and pictures, from saved logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from plankwise.core.intervals import format_interval
from plankwise.core.records import Record
from plankwise.evaluation.comparison import Pair
from plankwise.evaluation.evidence import Examples, Question, compare_pairs
from plankwise.evaluation.metrics import Array, Floats, decide
from plankwise.evaluation.score_metrics import are_scores
from plankwise.evaluation.slices import SCORE, classes_of, quartiles
from plankwise.report.svg import bar_picture, curve_picture, interval_picture

RESAMPLES = 1000  # of each interval of the comparison
SIDES = ("baseline", "compressed")


@dataclass(frozen=True)
class Section:
    """One recipe of a page, its seeds pooled.

    Attributes:
        name: of the recipe.
        verdict: in words.
        found: the comparison, as `evidence.compare_pairs` returns it.
        classes: names of the labels.
        confusion: of each model, rows of counts by true label, over all seeds; None where an example has not one class.
        retained: picture of what is retained of each metric.
        calibration: picture of both reliability curves; None of scores.
        times: picture of milliseconds a text.
    """

    name: str
    verdict: str
    found: dict[str, Any]
    classes: tuple[str, ...]
    confusion: dict[str, list[list[int]]] | None
    retained: Markup | None
    calibration: Markup | None
    times: Markup


@dataclass(frozen=True)
class Flip:
    """One text whose answer became wrong, or right.

    Attributes:
        text: of the example; both of a pair.
        gold: true label.
        baseline: the answer before.
        compressed: the answer after.
    """

    text: str
    gold: str
    baseline: str
    compressed: str


@dataclass(frozen=True)
class Flips:
    """A seeded sample of the flips of one run, and how many there are."""

    name: str
    lost: Sequence[Flip]
    lost_in_all: int
    won: Sequence[Flip]
    won_in_all: int


def section_of(records: Sequence[Record], pairs: Sequence[Pair]) -> Section:
    """Compare the two models of one recipe's runs.

    Args:
        records: of finished runs that differ in their seed alone.
        pairs: their saved logits.
    """
    first, labels = records[0], pairs[0].labels
    classes = (
        ()
        if are_scores(labels)
        else tuple(first.task.get("labels") or (str(each) for each in range(pairs[0].baseline.shape[1])))
    )
    slices = {"class": classes_of(labels, classes)} if classes else {SCORE: quartiles(labels, "")}
    question = Question(metrics=tuple(first.task["metrics"]), resamples=RESAMPLES)
    examples = Examples(classes=classes, slices=slices)
    found = compare_pairs(pairs, examples, question)
    return Section(
        name=first.name,
        verdict=_verdict(first, found),
        found=found,
        classes=classes,
        confusion=None if labels.ndim > 1 or not classes else _confusions(pairs, len(classes)),
        retained=_retained_picture(found["metrics"]),
        calibration=_calibration_picture(found["calibration"]) if classes else None,
        times=_times_picture(first),
    )


def _verdict(record: Record, found: Mapping[str, Any]) -> str:
    assert record.final is not None
    metric = record.task["metrics"][0]
    each = found["metrics"][metric]
    kept, smaller = each["retained"], record.final.compression_ratio
    share = "an undefined share" if kept is None else _shown(kept)
    line = (
        f"{record.name} keeps {share} of its baseline's {metric}, is {record.final.speedup:.2f} times as fast and has "
        f"{smaller:.2f} times fewer parameters. At a margin of {each['margin']:g} it is "
    )
    if each["verdict"] != "cannot tell":
        return f"{line}{each['verdict']}: the difference is {_shown(each['difference'], signed=True)}."
    more = each["more_examples"]
    needed = (
        "the loss found is itself beyond the margin" if more is None else f"that takes about {more:,} more examples"
    )
    difference = _shown(each["difference"], signed=True)
    return f"{line}undecided whether it is as good: the difference is {difference}; {needed}."


def _confusions(pairs: Sequence[Pair], classes: int) -> dict[str, list[list[int]]]:
    return {
        side: np.sum([confusion_of(pair.labels, getattr(pair, side), classes) for pair in pairs], axis=0).tolist()
        for side in SIDES
    }


def confusion_of(labels: Array, logits: Floats, classes: int) -> Array:
    """Count decisions by true label, [true, decided]."""
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (labels, decide(logits)), 1)
    return counts


def _retained_picture(metrics: Mapping[str, Any]) -> Markup | None:
    known = {name: each["retained"] for name, each in metrics.items() if each["retained"] is not None}
    if not known:
        return None
    rows = [(name, each["value"], each["low"], each["high"]) for name, each in known.items()]
    spoken = "; ".join(f"{name} {_shown(each)}" for name, each in known.items())
    return interval_picture(rows, reference=1.0, title=f"retained performance with 95 % intervals: {spoken}")


def _calibration_picture(calibration: Mapping[str, Any]) -> Markup:
    curves = {
        f"{side}, ECE {each['ece']:.3f}": [(bin_["confidence"], bin_["accuracy"]) for bin_ in each["reliability"]]
        for side, each in calibration.items()
    }
    title = f"reliability curves: {'; '.join(curves)}"
    return curve_picture(curves, title=title, across="confidence", up="accuracy", diagonal=True)


def _times_picture(record: Record) -> Markup:
    assert record.final is not None
    timed, runtimes = record.final.benchmark["throughput"], record.final.timed_in
    rows = [
        (f"{side}, {getattr(runtimes, side)}", timed[side]["ms_per_text"], f"{timed[side]['ms_per_text']:.2f} ms")
        for side in SIDES
    ]
    elsewhere = {name: timed[name]["ms_per_text"] for name in record.final.speedup_over if name in timed}
    rows += [(f"baseline, {name}", value, f"{value:.2f} ms") for name, value in elsewhere.items()]
    spoken = "; ".join(f"{name} {shown}" for name, _, shown in rows)
    return bar_picture(rows, title=f"milliseconds a text: {spoken}")


def _shown(interval: Mapping[str, float], *, signed: bool = False) -> str:
    return format_interval(interval["value"], interval["low"], interval["high"], signed=signed)
