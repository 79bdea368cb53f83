"""How fast the fine-tuned models predict in ONNX Runtime, fp32 and int8, all of them timed in turns."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from plankwise.core.files import folder_bytes
from plankwise.data.task import DEVELOPMENT, TEST, TRAIN, Task
from plankwise.data.truncation import Truncation
from plankwise.deploy.export.export import export, missing_packages
from plankwise.evaluation.benchmark.artefact_timing import MOST_TEXTS, time_artefacts
from plankwise.evaluation.benchmark.models import Export
from plankwise.run.artefacts import CALIBRATED, COMPARED, sample_texts
from plankwise.run.candidates import Timer
from plankwise.run.domain.settings import LARGE

logger = logging.getLogger(__name__)
PRECISIONS = ("fp32", "int8")
REFERENCE = "onnx fp32"  # how timings name the artefact that all others are compared with: the large model


def time_runtimes(
    models: Mapping[str, Path],
    task: Task,
    truncation: Truncation,
    *,
    exporter: Export = export,
    timer: Timer = time_artefacts,
) -> dict[str, dict[str, Any]]:
    """Export each model to ONNX Runtime in fp32 and int8, and time them on texts of the test split.

    Args:
        models: folders of fine-tuned models, by name; `large` is among them.
        task: with all its splits. Int8 is calibrated on train, and artefacts are compared with torch on development.
        truncation: how texts are read.
        exporter: makes artefacts.
        timer: times them.

    Returns:
        For each model and precision its `ms_per_text`, its `speedup` over the large model in fp32 with the `spread` of
        that over rounds, and its `size_bytes`; empty where ONNX Runtime is not installed or a model cannot be exported.
    """
    if missing_packages("onnx"):
        logger.warning("prediction is not timed in ONNX Runtime: pip install 'plankwise[onnx]'")
        return {}
    with TemporaryDirectory(prefix="plankwise-domain-") as scratch:
        try:
            folders = _export(models, task, truncation, Path(scratch), exporter)
        except Exception as error:  # converters raise errors of any kind; a missing timing must not end an experiment
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            logger.warning("prediction is not timed in ONNX Runtime: %s", first)
            return {}
        timings = timer(folders, sample_texts(task.splits[TEST], MOST_TEXTS))
        sizes = {label: folder_bytes(folder) for label, folder in folders.items()}
    found: dict[str, dict[str, Any]] = {name: {} for name in models}
    for label, timing in timings.items():
        name, precision = (LARGE, "fp32") if label == REFERENCE else label.rsplit(" ", 1)
        found[name][precision] = {
            "ms_per_text": timing.ms_per_text,
            "speedup": 1.0 if label == REFERENCE else timing.over_fp32,
            "spread": timing.spread,
            "size_bytes": sizes[label],
        }
    return found


def _export(
    models: Mapping[str, Path], task: Task, truncation: Truncation, folder: Path, exporter: Export
) -> dict[str, Path]:
    """Export each model in each precision; return the artefacts by their labels in timings."""
    calibration, compared = (
        sample_texts(task.splits[split], most) for split, most in ((TRAIN, CALIBRATED), (DEVELOPMENT, COMPARED))
    )
    made = {}
    for name, model in models.items():
        for precision in PRECISIONS:
            label = REFERENCE if (name, precision) == (LARGE, "fp32") else f"{name} {precision}"
            made[label] = folder / f"{name}-{precision}"
            exporter(
                model,
                made[label],
                to="onnx",
                precision=precision,
                truncation=truncation,
                calibration=calibration,
                texts=compared,
            )
    return made
