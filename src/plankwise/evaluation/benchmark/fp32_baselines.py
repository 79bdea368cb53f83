"""Who takes part in a benchmark: the given models, and what the first of them is without any compression."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plankwise.core.errors import ModelError
from plankwise.data.truncation import Truncation
from plankwise.deploy.export.export import export
from plankwise.deploy.manifest import is_artefact

logger = logging.getLogger(__name__)
NAIVE = "eager, arrival order"
TITLES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "torch": "torch"}
FP32 = {runtime: f"{TITLES[runtime]} fp32" for runtime in ("onnx", "openvino")}
REFERENCES = (NAIVE, *FP32.values())


@dataclass(frozen=True)
class Subject:
    """One model in one runtime.

    Attributes:
        name: in tables and documents.
        folder: what is opened.
        naive: whether it takes texts in order of arrival, 8 at a time.
    """

    name: str
    folder: str
    naive: bool = False


def given_models(models: Sequence[str]) -> list[Subject]:
    """Name models by how they were given; the second of the same name says so."""
    subjects: list[Subject] = []
    for model in models:
        before = sum(each.folder == model for each in subjects)
        subjects.append(Subject(f"{model} ({before + 1})" if before else model, model))
    return subjects


def fp32_baselines(first: Subject, scratch: Path, truncation: Truncation) -> list[Subject]:
    """Export a model to ONNX Runtime and OpenVINO in fp32, and add it as it is run without a thought.

    What cannot be had, because it is not installed or the model cannot be exported so, is left out and logged.

    Args:
        first: a folder of Transformers or plankwise; of an artefact nothing else can be made.
        scratch: an empty folder for the exports.
        truncation: how much of a text is read.
    """
    if is_artefact(Path(first.folder)):
        logger.info("%s is exported already: it has no other fp32 form to be held against", first.name)
        return []
    found = [Subject(NAIVE, first.folder, naive=True)]
    exported = (fp32_baseline(first, runtime, scratch, truncation) for runtime in FP32)
    return [*found, *(each for each in exported if each is not None)]


def fp32_baseline(first: Subject, runtime: str, scratch: Path, truncation: Truncation) -> Subject | None:
    """Export a model to a runtime in fp32; None, logged, if that cannot be done."""
    logger.info("exporting %s to %s fp32", first.name, runtime)
    try:
        export(first.folder, scratch / runtime, to=runtime, precision="fp32", truncation=truncation)
    except ModelError as error:
        logger.warning("no baseline in %s: %s", FP32[runtime], error)
        return None
    return Subject(FP32[runtime], str(scratch / runtime))
