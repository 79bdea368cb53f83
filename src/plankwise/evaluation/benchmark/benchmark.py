"""Any number of models, in any runtime, timed in turns on the same texts in the same batches.

Every model is compared with the first one. `plankwise bench` adds the first one in three other forms: in ONNX Runtime
and in OpenVINO, in fp32 with the same batches, because torch is slow on a CPU; and the naive way, in torch eager in
order of arrival. A run's final evaluation uses the same benchmark.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from plankwise.core.files import folder_bytes
from plankwise.core.hardware import environment, fixed_threads
from plankwise.core.progress import duration
from plankwise.core.timing import FEWEST_ROUNDS
from plankwise.data.batching.inputs import Text, log_texts_read
from plankwise.data.batching.token_budget import TOKENS_PER_BATCH
from plankwise.data.tokenizer.unknown_tokens import check_unknown
from plankwise.data.truncation import Truncation, check_positions, warn_if_other
from plankwise.deploy.deployed import Deployed, open_model
from plankwise.deploy.manifest import is_artefact
from plankwise.deploy.runtimes import Mode, Torch
from plankwise.encoder.checkpoint import load_trained
from plankwise.evaluation.benchmark.measurements import Measurements, latency_lengths
from plankwise.evaluation.benchmark.models import REFERENCES, BenchmarkedModel, fp32_baselines, given_models
from plankwise.evaluation.benchmark.peak_gemm import SIDES, peak_gemm
from plankwise.evaluation.benchmark.peak_memory import MemoryRequest, PeakMemory, peak_memory
from plankwise.evaluation.benchmark.system_load import LoadMonitor, load_warnings, unsteady_warnings
from plankwise.evaluation.benchmark.workload import ARRIVAL_BATCH, Workload, affordable, evenly, workload

logger = logging.getLogger(__name__)
Opened = dict[str, Deployed]
Memory = Callable[[MemoryRequest], PeakMemory]
CPU = torch.device("cpu")
LONGEST = 5  # times `bound_s` that the fewest rounds may take


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """How models are timed.

    Attributes:
        texts: for throughput, in order of arrival.
        threads: cores that each model may use.
        truncation: how much of a text all models read; by default the shortest that one of them was made for.
        rounds: how often each is timed.
        budget: padded tokens of a batch.
        device: of the models that torch runs; the other runtimes compute on the CPU.
        baselines: whether the first model is also timed in order of arrival, in ONNX Runtime and in OpenVINO.
        memory: whether peak memory is measured, in a process for each model.
        gemm_sides: of the matrix products that give the peak of the machine; none of them measures no peak.
        refuse_unknown: whether texts of which a model's tokenizer knows less than half are refused.
        bound_s: each measurement begins no further round after so many seconds, once there are three.
    """

    texts: Sequence[Text]
    threads: int
    truncation: Truncation | None = None
    rounds: int = 9
    budget: int = TOKENS_PER_BATCH
    device: torch.device = CPU
    baselines: bool = True
    memory: bool = True
    gemm_sides: Sequence[int] = SIDES
    refuse_unknown: bool = True
    bound_s: float = 120.0


def compare(folders: Sequence[str], config: BenchmarkConfig) -> dict[str, Any]:
    """Time models against the first of them.

    Args:
        folders: of models or artefacts, or Hub ids. The same one twice shows the noise.
        config: how.

    Raises:
        PlankwiseError: if a model cannot be read, or does not fit the texts.
    """
    return compare_models(given_models(folders), config)


def compare_models(
    models: Sequence[BenchmarkedModel], config: BenchmarkConfig, *, memory: Memory = peak_memory
) -> dict[str, Any]:
    """Time named models against the first of them.

    Latency is the time of one text of 32, 128 and 512 tokens, as far as all models have positions, with all threads.
    Throughput is measured on the texts with their own lengths, sorted into batches under a budget of padded tokens,
    from as many threads at once as a runtime has streams. A speed-up is the median over the rounds of the first model's
    time divided by the other's in the same round; `spread` is the smallest and the largest ratio. Models may have
    different labels: these do not change the time.

    Args:
        models: to time.
        config: how.
        memory: measures the peak memory of a model.

    Returns:
        The document that `plankwise bench --json` prints.

    Raises:
        PlankwiseError: if a model cannot be read, or does not fit the texts.
    """
    with fixed_threads(config.threads), TemporaryDirectory(prefix="plankwise-bench-") as scratch:
        models, opened, config = _opened(models, config, Path(scratch))
        config, warnings = _thinned(opened, config)
        work = {each.name: _work(each, opened[each.name], config) for each in models}
        log_texts_read("the texts", work[models[0].name].read)
        described = [_described(each, opened[each.name]) for each in models]
        with LoadMonitor() as monitor:
            peaks = peak_gemm(config.threads, sides=config.gemm_sides) if config.gemm_sides else {}
            figures = Measurements(REFERENCES, peaks, config.rounds, config.bound_s)
            timings = _timings(models, opened, work, figures, config)
        if config.memory:
            warnings += _add_memory(models, described, config, memory)
    warnings += [*load_warnings(monitor.load, config.threads), *unsteady_warnings(figures.ratios)]
    for warning in warnings:
        logger.warning("%s", warning)
    return {
        "baseline": models[0].name,
        "device": str(config.device),
        "threads": config.threads,
        "rounds": config.rounds,
        "batching": _batching(work[models[0].name], config),
        "ceiling_gops": figures.peak_gops,
        "models": described,
        **timings,
        "load": monitor.load.as_json(),
        "warnings": warnings,
        "environment": environment(),
    }


def _opened(
    models: Sequence[BenchmarkedModel], config: BenchmarkConfig, scratch: Path
) -> tuple[Sequence[BenchmarkedModel], Opened, BenchmarkConfig]:
    """Open the models in latency mode, with one truncation for all, and add the baselines."""
    opened = {each.name: _open(each, "latency", config) for each in models}
    truncation = config.truncation or _shortest(opened)
    config = dataclasses.replace(config, truncation=truncation)
    for each in models:
        warn_if_other(truncation, opened[each.name].own, each.name)
        check_positions(truncation, opened[each.name].manifest.positions)
    added = fp32_baselines(models[0], scratch, truncation) if config.baselines else []
    return [*models, *added], opened | {each.name: _open(each, "latency", config) for each in added}, config


def _open(model: BenchmarkedModel, mode: Mode, config: BenchmarkConfig) -> Deployed:
    deployed = open_model(model.folder, mode, config.threads, config.truncation)
    if config.device == CPU or is_artefact(Path(model.folder)):
        return deployed
    # `open_model` leaves models on the CPU. On a GPU a run is timed until its logits are back, which also waits for it.
    placed = load_trained(model.folder).to(config.device)
    return dataclasses.replace(deployed, runtime=Torch(placed, threads=config.threads))


def _shortest(opened: Opened) -> Truncation:
    return min((each.manifest.truncation for each in opened.values()), key=lambda truncation: truncation.max_length)


def _thinned(opened: Opened, config: BenchmarkConfig) -> tuple[BenchmarkConfig, list[str]]:
    """Leave texts out, with a warning, if the fewest rounds over all of them would take `LONGEST` times the bound."""
    given, seconds = len(config.texts), LONGEST * config.bound_s
    number = affordable(opened, config.texts, FEWEST_ROUNDS + 2, seconds)
    if number >= given:
        return config, []
    texts = [config.texts[index] for index in evenly(given, number)]
    warning = f"timed on {number} of {given} texts: with all of them a few rounds take longer than {duration(seconds)}"
    return dataclasses.replace(config, texts=texts), [warning]


def _work(model: BenchmarkedModel, deployed: Deployed, config: BenchmarkConfig) -> Workload:
    if config.refuse_unknown:
        check_unknown(config.texts, deployed.tokenizer, model.folder)
    manifest = deployed.manifest.model_copy(update={"truncation": config.truncation})
    return workload(manifest, deployed.tokenizer, config.texts, None if model.naive else config.budget)


def _timings(
    models: Sequence[BenchmarkedModel],
    opened: Opened,
    work: Mapping[str, Workload],
    figures: Measurements,
    config: BenchmarkConfig,
) -> dict[str, Any]:
    """Time single texts, then all of them."""
    single = {each.name: opened[each.name] for each in models if not each.naive}
    lengths = latency_lengths([each.manifest for each in single.values()])
    logger.info("timing %d models on single texts, then on %d texts", len(models), len(config.texts))
    latency = {str(tokens): figures.latency(single, tokens) for tokens in lengths}
    for each in models:
        # ONNX Runtime and OpenVINO fix the number of streams when they load a model, so it is loaded again.
        if opened[each.name].manifest.runtime != "torch":
            single.pop(each.name)
            opened[each.name] = _open(each, "throughput", config)
    return {"latency": latency, "throughput": figures.throughput(opened, work)}


def _described(model: BenchmarkedModel, deployed: Deployed) -> dict[str, Any]:
    folder = Path(model.folder)
    size = folder_bytes(folder) if folder.is_dir() else None
    return {
        "name": model.name,
        "runtime": deployed.manifest.runtime,
        "precision": deployed.manifest.precision,
        "independent": deployed.manifest.independent,
        "size_bytes": size,
        "peak_memory_bytes": None,
    }


def _add_memory(
    models: Sequence[BenchmarkedModel], described: Sequence[dict[str, Any]], config: BenchmarkConfig, memory: Memory
) -> list[str]:
    """Add each model's peak memory to its description; return a warning for each that has none."""
    assert config.truncation is not None
    warnings = []
    for model, row in zip(models, described, strict=True):
        budget = None if model.naive else config.budget
        found = memory(MemoryRequest(model.folder, config.truncation, list(config.texts), budget, config.threads))
        row["peak_memory_bytes"] = found.size_bytes
        if found.size_bytes is None:
            warnings.append(f"no peak memory of {model.name}: {found.missing}")
    return warnings


def _batching(first: Workload, config: BenchmarkConfig) -> dict[str, Any]:
    assert config.truncation is not None
    p50, p95 = np.percentile(first.lengths, [50, 95]).tolist()
    return {
        "texts": first.texts,
        "inputs": len(first.lengths),
        "tokens": {"p50": p50, "p95": p95, "most": max(first.lengths)},
        "budget": config.budget,
        "arrival_order": ARRIVAL_BATCH,
        "reading": dataclasses.asdict(config.truncation),
        "texts_read": first.read.model_dump(),
    }
