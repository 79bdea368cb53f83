"""The whole comparison of a compressed model with its baseline, as one JSON document that a person can sign.

Everything is paired by example; with several training seeds the bootstrap draws seeds first, then examples.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from plankwise.core.errors import RecipeError
from plankwise.core.records import Interval
from plankwise.data.metric_names import metrics_for
from plankwise.evaluation.bca import bca_interval
from plankwise.evaluation.calibration import describe_calibration
from plankwise.evaluation.comparison import Pair, behaviour, retained_performance
from plankwise.evaluation.floors import MAJORITY, MEAN
from plankwise.evaluation.intervals import interval_of, resampled_scores
from plankwise.evaluation.metrics import METRICS, Array, Floats, Metric
from plankwise.evaluation.noninferiority import holm, judged, p_value
from plankwise.evaluation.operating_point import at_threshold, class_scores, threshold_for
from plankwise.evaluation.score_metrics import are_scores
from plankwise.evaluation.slices import Slices, compare_slices

SIDES = ("baseline", "compressed")


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a comparison is asked.

    Attributes:
        metrics: the first decides; without any, the usual ones for classes or scores.
        margin: largest loss of a metric that is acceptable.
        class_margin: largest loss of a class' F1.
        precision: of the operating points.
        resamples: of the bootstrap.
        seed: of the resampling.
    """

    metrics: tuple[str, ...] = ()
    margin: float = 0.01
    class_margin: float = 0.05
    precision: float = 0.9
    resamples: int = 2000
    seed: int = 0

    def about(self, labels: Array) -> Question:
        """Return the same with its metrics named.

        Args:
            labels: of the examples.

        Raises:
            RecipeError: if a metric is not for such labels.
        """
        try:
            return replace(self, metrics=metrics_for(self.metrics, are_scores(labels)))
        except ValueError as error:
            raise RecipeError(f"--metric: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What is known of the examples beside the answers to them.

    Attributes:
        classes: names of the labels, in the order of the logits; none where the task is about scores.
        floors: logits of models that know next to nothing, by name.
        slices: parts of the examples.
    """

    classes: tuple[str, ...]
    floors: Mapping[str, Floats] = field(default_factory=dict)
    slices: Slices = field(default_factory=dict)


def compare_pairs(
    pairs: Sequence[Pair],
    examples: Examples,
    question: Question,
    *,
    development: Sequence[Pair] | None = None,
    retrained: Sequence[Pair] | None = None,
) -> dict[str, Any]:
    """Compare a compressed model with its baseline.

    Args:
        pairs: logits of both on the same examples, of each training seed.
        examples: what is known of these.
        question: what is asked.
        development: the same of each seed on other examples, to calibrate and choose thresholds on.
        retrained: pairs of two baselines that differ in their seed: the floor of all flips. Made of `pairs` where there
            are several seeds.
    """
    question = question.about(pairs[0].labels)
    metrics = {name: compare_metric(pairs, name, question, examples.floors) for name in question.metrics}
    adjusted = holm({name: found["p"] for name, found in metrics.items()})
    for name, found in metrics.items():
        found["p_holm"] = adjusted[name]
    floor = retrained or seed_pairs(pairs)
    decides = not are_scores(pairs[0].labels)
    return {
        "rows": len(pairs[0].labels),
        "seeds": len(pairs),
        "metrics": metrics,
        "verdict": metrics[question.metrics[0]]["verdict"],
        "classes": compare_classes(pairs, examples.classes, question),
        "behaviour": mean_behaviour(pairs),
        "retraining_floor": None if not floor else mean_behaviour(floor),
        "calibration": {
            side: describe_calibration(_runs(pairs, side), None if development is None else _runs(development, side))
            for side in SIDES
        }
        if decides
        else None,
        "operating_points": operating_points(pairs, development, examples.classes, question.precision),
        "slices": compare_slices(pairs, examples.slices, question.resamples, question.seed),
    }


def compare_metric(
    pairs: Sequence[Pair], name: str, question: Question, floors: Mapping[str, Floats]
) -> dict[str, Any]:
    """Compare one metric: scores, difference with verdict, what is retained, also above chance, and the floors."""
    old, new = (_runs(pairs, side) for side in SIDES)
    drawn = [resampled_scores(runs, name, question.resamples, question.seed) for runs in (old, new)]
    scores = [float(np.mean([METRICS[name](*run) for run in runs])) for runs in (old, new)]
    labels = pairs[0].labels
    cleared = {floor: _floor(labels, logits, name, scores[0], drawn[0], question) for floor, logits in floors.items()}
    chance = next((cleared[name]["score"] for name in (MAJORITY, MEAN) if name in cleared), None)
    difference = interval_of(scores[1] - scores[0], drawn[1] - drawn[0])
    return {
        "baseline": interval_of(scores[0], drawn[0]).model_dump(),
        "compressed": interval_of(scores[1], drawn[1]).model_dump(),
        **judged(difference, question.margin, len(labels)),
        "difference_bca": _plain(bca_interval(pairs, METRICS[name], drawn[1] - drawn[0])),
        "p": p_value(drawn[1] - drawn[0], question.margin),
        "retained": _plain(retained_performance(pairs, name, question.resamples, question.seed)),
        "chance_corrected": None
        if chance is None
        else _plain(retained_performance(pairs, name, question.resamples, question.seed, chance=chance)),
        "floors": cleared,
    }


def _floor(
    labels: Array, logits: Floats, name: str, baseline: float, drawn: Floats, question: Question
) -> dict[str, Any]:
    """Return a floor's score, and whether the baseline is above it on nearly every resample."""
    score = METRICS[name](labels, logits)
    lead = interval_of(
        baseline - score, drawn - resampled_scores([(labels, logits)], name, question.resamples, question.seed)
    )
    return {"score": score, "lead": lead.model_dump(), "cleared": lead.low > 0}


def compare_classes(pairs: Sequence[Pair], classes: Sequence[str], question: Question) -> list[dict[str, Any]]:
    """Judge the F1 of each class by a margin of its own: the mean over classes hides the loss of a rare one."""
    found = []
    for index, name in enumerate(classes):
        metric, runs = class_f1(index, len(classes)), [_runs(pairs, side) for side in SIDES]
        drawn = [resampled_scores(each, metric, question.resamples, question.seed) for each in runs]
        scores = [float(np.mean([metric(*run) for run in each])) for each in runs]
        labels = pairs[0].labels
        difference = interval_of(scores[1] - scores[0], drawn[1] - drawn[0])
        found.append(
            {
                "class": name,
                "rows": int((labels[:, index] == 1).sum() if labels.ndim == 2 else (labels == index).sum()),
                "baseline": scores[0],
                "compressed": scores[1],
                **judged(difference, question.class_margin, len(labels)),
            }
        )
    return found


def class_f1(index: int, classes: int) -> Metric:
    """Return the F1 of one class as a metric."""

    def reduce(totals: Floats) -> Floats:
        right, predicted, actual = (totals[..., at * classes + index] for at in range(3))
        found: Floats = np.divide(2 * right, predicted + actual, out=np.zeros_like(right), where=predicted + actual > 0)
        return found

    return Metric(reduce)


def mean_behaviour(pairs: Sequence[Pair]) -> dict[str, float]:
    """Average how the decisions of two models compare over training seeds, as `comparison.behaviour` describes it.

    A p-value has no mean: McNemar's is there for a single seed.
    """
    found = [behaviour(each) for each in pairs]
    names = [name for name in found[0] if len(found) == 1 or name != "mcnemar_p"]
    return {name: float(np.mean([each[name] for each in found])) for name in names}


def seed_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Pair the baselines of different training seeds: how much a model changes by being trained again."""
    return [Pair(one.labels, one.baseline, other.baseline) for one, other in itertools.combinations(pairs, 2)]


def operating_points(
    pairs: Sequence[Pair], development: Sequence[Pair] | None, classes: Sequence[str], precision: float
) -> list[dict[str, Any]]:
    """Return, for each class, what the baseline's threshold for this precision gives in both models.

    The threshold is chosen on development; without it on every other example, and measured on the rest. Each training
    seed has a threshold of its own, and figures are means over those seeds that have one.
    """
    others: Sequence[Pair | None] = [None] * len(pairs) if development is None else development
    found = []
    for index, name in enumerate(classes):
        points = [_operating_point(*each, index, precision) for each in zip(pairs, others, strict=True)]
        there = [point for point in points if point is not None]
        mean = {key: _mean([point[key] for point in there]) for key in ("threshold", *SIDES)}
        found.append({"class": name, "precision_wanted": precision, **mean})
    return found


def _operating_point(pair: Pair, development: Pair | None, index: int, precision: float) -> dict[str, Any] | None:
    chosen, measured = development, pair
    if chosen is None:
        half = np.arange(len(pair.labels)) % 2 == 0
        chosen, measured = (Pair(pair.labels[at], pair.baseline[at], pair.compressed[at]) for at in (half, ~half))
    threshold = threshold_for(*class_scores(chosen.labels, chosen.baseline, index), precision)
    if threshold is None:
        return None
    models = {side: class_scores(measured.labels, getattr(measured, side), index) for side in SIDES}
    return {"threshold": threshold, **{side: asdict(at_threshold(*each, threshold)) for side, each in models.items()}}


def _mean(values: Sequence[Any]) -> Any:
    """Average numbers, or the numbers of documents by key; those that are None do not count."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    if isinstance(there[0], dict):
        return {key: _mean([value[key] for value in there]) for key in there[0]}
    return float(np.mean(there))


def _runs(pairs: Sequence[Pair], side: str) -> list[tuple[Array, Floats]]:
    return [(each.labels, getattr(each, side)) for each in pairs]


def _plain(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval.model_dump()
