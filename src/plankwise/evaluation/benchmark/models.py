"""Which models a benchmark times: the given ones, and the first of them in fp32 without any compression."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plankwise.core.errors import ModelError
from plankwise.data.truncation import Truncation
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import Manifest, is_artefact

logger = logging.getLogger(__name__)
NAIVE = "eager, arrival order"
TITLES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "torch": "torch"}
FP32 = {runtime: f"{TITLES[runtime]} fp32" for runtime in ("onnx", "openvino")}
REFERENCES = (NAIVE, *FP32.values())
Export = Callable[..., Manifest]  # called as `deploy.export.export.export` is


@dataclass(frozen=True)
class BenchmarkedModel:
    """One model in one runtime.

    Attributes:
        name: in tables and documents.
        folder: to open: an artefact, or a folder or Hub id of a fine-tuned model.
        naive: whether it takes texts in order of arrival, 8 at a time.
    """

    name: str
    folder: str
    naive: bool = False


def given_models(folders: Sequence[str]) -> list[BenchmarkedModel]:
    """Name models by their folders; a folder that is given twice gets a number."""
    models: list[BenchmarkedModel] = []
    for folder in folders:
        before = sum(each.folder == folder for each in models)
        models.append(BenchmarkedModel(f"{folder} ({before + 1})" if before else folder, folder))
    return models


def fp32_baselines(
    first: BenchmarkedModel, scratch: Path, truncation: Truncation, *, exporter: Export = export
) -> list[BenchmarkedModel]:
    """Export a model to ONNX Runtime and OpenVINO in fp32, and add the naive way of running it.

    A runtime that is not installed, or that the model cannot be exported to, is left out and logged.

    Args:
        first: a folder of Transformers or plankwise; an artefact cannot be exported again.
        scratch: an empty folder for the exports.
        truncation: how much of a text is read.
        exporter: makes the artefacts.
    """
    if is_artefact(Path(first.folder)):
        logger.info("%s is exported already: it cannot be timed in another runtime in fp32", first.name)
        return []
    found = [BenchmarkedModel(NAIVE, first.folder, naive=True)]
    exported = (fp32_baseline(first, runtime, scratch, truncation, exporter=exporter) for runtime in FP32)
    return [*found, *(each for each in exported if each is not None)]


def fp32_baseline(
    first: BenchmarkedModel, runtime: str, scratch: Path, truncation: Truncation, *, exporter: Export = export
) -> BenchmarkedModel | None:
    """Export a model to a runtime in fp32; None, logged, if that cannot be done."""
    logger.info("exporting %s to %s fp32", first.name, runtime)
    try:
        exporter(first.folder, scratch / runtime, to=runtime, precision="fp32", truncation=truncation)
    except ModelError as error:
        logger.warning("no baseline in %s: %s", FP32[runtime], error)
        return None
    return BenchmarkedModel(FP32[runtime], str(scratch / runtime))
