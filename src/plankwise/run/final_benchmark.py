"""How fast a run's last model is against its baseline, each in the runtime that it is meant for.

That is torch, and for a quantized model a runtime that multiplies int8: torch eager computes it in fp32. The baseline
is also timed in ONNX Runtime fp32: on a CPU, that is how fast it is without any compression.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from plankwise.core.hardware import default_device, fixed_threads
from plankwise.core.records import TORCH
from plankwise.data.task import DEVELOPMENT, TEST, Task
from plankwise.deploy.export.export import export, missing_packages
from plankwise.deploy.manifest import RuntimeName
from plankwise.encoder.checkpoint import load_config
from plankwise.encoder.quantized import is_quantized
from plankwise.evaluation.benchmark.benchmark import CPU, BenchmarkConfig, compare_models
from plankwise.evaluation.benchmark.models import TITLES, BenchmarkedModel, Export, fp32_baseline
from plankwise.evaluation.benchmark.workload import THROUGHPUT_TEXTS, texts_of_split
from plankwise.run.artefacts import COMPARED, sample_texts
from plankwise.run.recipe import Recipe

logger = logging.getLogger(__name__)
BASELINE, COMPRESSED = "baseline", "compressed"
INT8_RUNTIMES: tuple[RuntimeName, ...] = ("openvino", "onnx")  # the faster one first
BOUND_S = 60.0  # of each measurement: a run should not wait long for its timing
Compare = Callable[[Sequence[BenchmarkedModel], BenchmarkConfig], dict[str, Any]]
_SHOWN = ("ms_per_text", "p50_ms", "p95_ms")


def benchmark_final(
    task: Task,
    recipe: Recipe,
    baseline: Path,
    model: Path,
    *,
    exporter: Export = export,
    compare: Compare = compare_models,
    missing: Callable[[RuntimeName], Sequence[str]] = missing_packages,
) -> dict[str, Any]:
    """Time a run's last model against its baseline, on texts of the test split, in the batches of prediction.

    The int8 artefact of a quantized model is first compared with torch on texts of development. Where it cannot be made
    or timed, both models are timed in torch; a warning says why.

    Args:
        task: with all its splits.
        recipe: says how texts are read and how the end is measured.
        baseline: folder of the model before compression.
        model: folder of the model after it.
        exporter: makes artefacts.
        compare: times the models.
        missing: names the packages that a runtime lacks.

    Returns:
        The `benchmark` of a record: by length of text (`latency`) and over the texts (`throughput`) the times of each
        model, with the `speedup` of the last one, its `spread`, and the same `over` the baseline in other runtimes.
    """
    timed = partial(_timed, task, recipe, baseline, exporter=exporter, compare=compare, onnx=not missing("onnx"))
    if is_quantized(load_config(str(model))):
        fault = "no runtime for int8 is installed; pip install 'plankwise[openvino]'"
        runtime = next((each for each in INT8_RUNTIMES if not missing(each)), None)
        if runtime is not None:
            try:
                with TemporaryDirectory(prefix="plankwise-final-") as scratch:
                    artefact = Path(scratch) / "artefact"
                    _export_int8(task, recipe, model, artefact, runtime=runtime, exporter=exporter)
                    return timed(artefact, runtime=f"{TITLES[runtime]} int8", device=CPU)
            except Exception as error:  # converters raise errors of any kind; a missing timing must not end a run
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                fault = f"{TITLES[runtime]} int8 cannot be timed: {first}"
        logger.warning("timed in torch eager, which computes int8 in fp32: %s", fault)
    return timed(model, runtime=TORCH, device=default_device())


def _export_int8(task: Task, recipe: Recipe, model: Path, out: Path, *, runtime: RuntimeName, exporter: Export) -> None:
    logger.info("exporting the model to %s int8, to time it there", runtime)
    compared, truncation = sample_texts(task.splits[DEVELOPMENT], COMPARED), recipe.model.plain_truncation
    exporter(model, out, to=runtime, precision="int8", truncation=truncation, texts=compared)


def _timed(
    task: Task,
    recipe: Recipe,
    baseline: Path,
    compressed: Path,
    *,
    runtime: str,
    device: torch.device,
    exporter: Export,
    compare: Compare,
    onnx: bool,
) -> dict[str, Any]:
    """Time the baseline in torch, the compressed model in `runtime`, and the baseline in ONNX Runtime on a CPU."""
    truncation, evaluation = recipe.model.plain_truncation, recipe.evaluation
    models = [BenchmarkedModel(BASELINE, str(baseline)), BenchmarkedModel(COMPRESSED, str(compressed))]
    with TemporaryDirectory(prefix="plankwise-final-") as scratch, fixed_threads(evaluation.threads) as threads:
        if onnx and evaluation.onnx_baseline and device == CPU:
            added = fp32_baseline(models[0], "onnx", Path(scratch), truncation, exporter=exporter)
            models += [] if added is None else [added]
        config = BenchmarkConfig(
            texts_of_split(task.splits[TEST], THROUGHPUT_TEXTS),
            threads,
            truncation,
            evaluation.rounds,
            device=device,
            baselines=False,
            memory=False,
            gemm_sides=(),
            refuse_unknown=False,  # a trimmed tokenizer may know few of the words of the test split
            bound_s=BOUND_S,
        )
        document = compare(models, config)
    return {
        "runtime": runtime,
        "runtimes": {BASELINE: TORCH, COMPRESSED: runtime},
        **{key: document[key] for key in ("device", "threads", "rounds", "load", "warnings")},
        "latency": {tokens: _case(case) for tokens, case in document["latency"].items()},
        "throughput": {**_case(document["throughput"]), "texts": document["batching"]["texts"]},
    }


def _case(case: Mapping[str, Any]) -> dict[str, Any]:
    """Arrange figures as records have them: the times of each model, and the speed-up of the compressed one."""
    times = {name: {key: each[key] for key in _SHOWN if key in each} for name, each in case.items()}
    return {**times, **{key: case[COMPRESSED][key] for key in ("speedup", "spread", "over")}}
