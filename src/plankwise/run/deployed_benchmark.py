"""How fast a quantized model is where it is meant to run: in a runtime that multiplies int8, unlike torch eager."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from plankwise.core.hardware import fixed_threads
from plankwise.core.records import TORCH
from plankwise.data.task import DEVELOPMENT, TEST, Task
from plankwise.deploy.export.export import export, missing_packages
from plankwise.deploy.manifest import RuntimeName
from plankwise.evaluation.benchmark.benchmark import BenchmarkConfig, compare_subjects
from plankwise.evaluation.benchmark.fp32_baselines import TITLES, Subject, fp32_baseline
from plankwise.evaluation.benchmark.torch_pair import BASELINE, BOUND_S, COMPRESSED, THROUGHPUT_TEXTS
from plankwise.evaluation.benchmark.workload import texts_of_split
from plankwise.run.artefacts import COMPARED, sample_texts
from plankwise.run.recipe import Recipe

logger = logging.getLogger(__name__)
RUNTIMES: tuple[RuntimeName, ...] = ("openvino", "onnx")
_SHOWN = ("ms_per_text", "p50_ms", "p95_ms")


def deployed_benchmark(task: Task, recipe: Recipe, baseline: Path, model: Path) -> dict[str, Any] | None:
    """Time the int8 artefact of a quantized model against its baseline in torch eager fp32, on the CPU.

    All run the same texts in the batches that prediction makes, the baseline in ONNX Runtime fp32 too where that is
    installed. The artefact is compared with torch first, on texts of development.

    Returns:
        Figures in the form of `benchmark.benchmark`, or None where the model cannot be timed so; a warning says why.
    """
    runtime = next((each for each in RUNTIMES if not missing_packages(each)), None)
    if runtime is None:
        logger.warning(
            "timed in torch eager, which computes int8 in fp32: no runtime for int8 is installed; "
            "pip install 'plankwise[openvino]'"
        )
        return None
    try:
        return _timed(task, recipe, baseline, model, runtime)
    except Exception as error:  # converters raise errors of any kind, and a run must not end for want of a timing
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning(
            "timed in torch eager, which computes int8 in fp32: %s int8 cannot be timed: %s", TITLES[runtime], first
        )
        return None


def _timed(task: Task, recipe: Recipe, baseline: Path, model: Path, runtime: RuntimeName) -> dict[str, Any]:
    truncation, evaluation = recipe.model.plain_truncation, recipe.evaluation
    with TemporaryDirectory(prefix="plankwise-final-") as scratch, fixed_threads(evaluation.threads) as threads:
        logger.info("exporting the model to %s int8, to time it there", runtime)
        compared, artefact = sample_texts(task.splits[DEVELOPMENT], COMPARED), Path(scratch) / "artefact"
        export(model, artefact, to=runtime, precision="int8", truncation=truncation, texts=compared)
        subjects = [Subject(BASELINE, str(baseline)), Subject(COMPRESSED, str(artefact))]
        if not missing_packages("onnx"):
            added = fp32_baseline(subjects[0], "onnx", Path(scratch), truncation)
            subjects += [] if added is None else [added]
        terms = BenchmarkConfig(
            texts_of_split(task.splits[TEST], THROUGHPUT_TEXTS),
            threads,
            truncation,
            evaluation.rounds,
            baselines=False,
            memory=False,
            ceilings=False,
            bound_s=BOUND_S,
        )
        document = compare_subjects(subjects, terms)
    title = f"{TITLES[runtime]} int8"
    return {
        "runtime": title,
        "runtimes": {BASELINE: TORCH, COMPRESSED: title},
        **{key: document[key] for key in ("device", "threads", "rounds", "load", "warnings")},
        "latency": {tokens: _pair(case) for tokens, case in document["latency"].items()},
        "throughput": {**_pair(document["throughput"]), "texts": document["batching"]["texts"]},
    }


def _pair(case: Mapping[str, Any]) -> dict[str, Any]:
    """Arrange the figures as `benchmark` does: times of each model, and what lies between the two."""
    times = {name: {key: each[key] for key in _SHOWN if key in each} for name, each in case.items()}
    return {**times, **{key: case[COMPRESSED][key] for key in ("speedup", "spread", "over")}}
