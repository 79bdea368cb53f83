"""The names of metrics: which there are for classes and which for scores, and those of a task that names none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic

from plankwise.core.errors import suggest

logger = logging.getLogger(__name__)
OF_CLASSES = ("accuracy", "macro_f1", "micro_f1", "germeval_f1", "auroc", "average_precision")
OF_SCORES = ("spearman", "pearson", "r2")
DEFAULT_OF_CLASSES, DEFAULT_OF_SCORES = ("macro_f1", "accuracy"), ("spearman", "pearson")
RENAMED = {"official_f": "germeval_f1"}


def _current_name(name: Any) -> Any:
    if not isinstance(name, str) or name not in RENAMED:
        return name
    logger.warning("the metric %s is now called %s", name, RENAMED[name])
    return RENAMED[name]


MetricName = Annotated[
    Literal[
        "accuracy",
        "macro_f1",
        "micro_f1",
        "germeval_f1",
        "auroc",
        "average_precision",
        "spearman",
        "pearson",
        "r2",
    ],
    pydantic.BeforeValidator(_current_name),
]


def agreement_name(metric: str) -> str:
    """Return what agreement with the original is called where a metric decides."""
    return "same order (ρ)" if metric in OF_SCORES else "same labels"


def metrics_for(given: Sequence[str] | None, scores: bool) -> tuple[str, ...]:
    """Return the metrics of a task: those that are given, or the usual ones.

    Args:
        given: names.
        scores: whether the task is about scores, rather than classes.

    Raises:
        ValueError: naming a metric that is not for such tasks, and those that are.
    """
    allowed, usual = (OF_SCORES, DEFAULT_OF_SCORES) if scores else (OF_CLASSES, DEFAULT_OF_CLASSES)
    stray = next((name for name in given or () if name not in allowed), None)
    if stray is None:
        return tuple(given) if given else usual
    if stray in (*OF_CLASSES, *OF_SCORES):
        kind, other = ("a score", "classes") if scores else ("classes", "scores")
        raise ValueError(f"the metric '{stray}' is for {other}, and the task has {kind}; allowed: {', '.join(allowed)}")
    raise ValueError(f"no metric '{stray}'; {suggest(stray, allowed)}")
