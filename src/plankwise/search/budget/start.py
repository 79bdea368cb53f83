"""The first thing a search measures: the original in torch, ONNX Runtime and OpenVINO, on the data's own lengths."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydantic

from plankwise.core.errors import DataError, ModelError
from plankwise.core.files import read_text, write_json
from plankwise.core.records import Interval
from plankwise.data.task import DEVELOPMENT, TRAIN
from plankwise.deploy.export.export import missing_packages
from plankwise.deploy.manifest import RuntimeName
from plankwise.evaluation.benchmark.paired_timing import PairedTiming
from plankwise.evaluation.intervals import score_interval
from plankwise.evaluation.metrics import METRICS, Floats, majority_logits
from plankwise.search.budget.candidate import NOTHING_INSTALLED, Candidate
from plankwise.search.budget.evaluation import RESAMPLES, Evaluator, Original, title_of

logger = logging.getLogger(__name__)
FILE, LOGITS, TORCH = "original.json", "original.npz", "torch fp32"
REFERENCES: tuple[RuntimeName, ...] = ("onnx", "openvino")  # in fp32, the first that is installed


class Start(pydantic.BaseModel):
    """What was measured of the original.

    Attributes:
        ms_per_text: by runtime, in fp32 and in sorted batches.
        reference: the runtime that speed-ups refer to, a key of `ms_per_text`.
        scores: on development, by metric.
        interval: of the first metric.
        majority: the first metric of always guessing the most frequent class of train.
        warnings: of the timing.
    """

    ms_per_text: dict[str, float]
    reference: str
    scores: dict[str, float]
    interval: Interval
    majority: float
    warnings: tuple[str, ...] = ()

    @property
    def beats_majority(self) -> bool:
        """Whether the lower end of the original's interval is above the majority guess."""
        return self.interval.low > self.majority

    def warn_if_no_better_than_majority(self) -> None:
        """Log that no budget can be met, before anything is compared with such a model."""
        if not self.beats_majority:
            logger.warning(
                "the original's %s %s does not beat the majority class, %.3f: nothing is proved, and no budget is met",
                next(iter(self.scores)),
                self.interval,
                self.majority,
            )


def measure_original(evaluator: Evaluator, folder: Path) -> tuple[Start, Original]:
    """Score the original and time it, unless that was done before.

    Args:
        evaluator: of the search.
        folder: of the search.

    Raises:
        DataError: if the original's score is 0 or not a number: nothing could be kept of it.
        ModelError: if no runtime is installed that speed-ups could refer to.
    """
    artefacts = references_of(evaluator)
    if (folder / FILE).exists():
        start = Start.model_validate_json(read_text(folder / FILE))
        logits = np.load(folder / LOGITS, allow_pickle=False)["logits"]
    else:
        model, reference = evaluator.model(())[0], next(iter(artefacts))
        logits = evaluator.logits(artefacts[reference])  # as torch's to 1e-3, which its export compared, and faster
        timed = evaluator.time({TORCH: model, **artefacts})
        start = _start(evaluator, logits, timed, reference)
        np.savez_compressed(folder / LOGITS, logits=logits)
        write_json(folder / FILE, start.model_dump(mode="json"))
    metric, score = evaluator.task.metrics[0], start.interval.value
    if not np.isfinite(logits).all() or not score > 0:
        raise DataError(f"the original's {metric} on development is {score:.3g}: there is nothing to keep")
    return start, Original(logits, artefacts[start.reference], start.reference)


def references_of(evaluator: Evaluator) -> dict[str, Path]:
    """Export the original in fp32 to every runtime that is installed."""
    model, _ = evaluator.model(())
    found = {}
    for runtime in REFERENCES:
        if missing_packages(runtime):
            continue
        candidate = Candidate(name=f"original, {runtime} fp32", rung="runtime", runtime=runtime, precision="fp32")
        found[title_of(runtime, "fp32")] = evaluator.artefact(candidate, model)
    if not found:
        raise ModelError(NOTHING_INSTALLED)
    return found


def _start(evaluator: Evaluator, logits: Floats, timed: Mapping[str, PairedTiming], reference: str) -> Start:
    task, labels = evaluator.task, evaluator.labels(DEVELOPMENT)
    guess = majority_logits(labels, evaluator.labels(TRAIN))
    return Start(
        ms_per_text={name: each.ms_per_text for name, each in timed.items()},
        reference=reference,
        scores={name: METRICS[name](labels, logits) for name in task.metrics},
        interval=score_interval([labels], [logits], task.metrics[0], RESAMPLES),
        majority=METRICS[task.metrics[0]](labels, guess),
        warnings=next(iter(timed.values())).warnings,
    )
