"""Any number of models, in whatever runtime, timed on the same texts in the same batches, taking turns.

The first model is what the others are held against. Because torch runs it slowly, it also stands there in ONNX Runtime
and OpenVINO, in fp32 with the same batching, and as it is run without a thought: eager, in order of arrival.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from plankwise.core.hardware import environment, fixed_threads
from plankwise.core.timing import FEWEST_ROUNDS
from plankwise.data.batching.inputs import Text, log_texts_read
from plankwise.data.batching.token_budget import TOKENS_PER_BATCH
from plankwise.data.tokenizer.unknown_tokens import check_unknown
from plankwise.data.truncation import Truncation, check_positions, warn_if_other
from plankwise.deploy.deployed import Deployed, open_model
from plankwise.deploy.runtimes import Mode
from plankwise.evaluation.benchmark.fp32_baselines import REFERENCES, Subject, fp32_baselines, given_models
from plankwise.evaluation.benchmark.measurements import Measurements, latency_lengths
from plankwise.evaluation.benchmark.peak_gemm import gemm_ceilings
from plankwise.evaluation.benchmark.peak_memory import peak_memory
from plankwise.evaluation.benchmark.system_load import LoadMonitor, load_warnings, unsteady_warnings
from plankwise.evaluation.benchmark.workload import ARRIVAL_BATCH, Workload, affordable, evenly, workload

logger = logging.getLogger(__name__)
Opened = dict[str, Deployed]
LONGEST = 5


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """How models are timed.

    Attributes:
        texts: that throughput is measured on, in order of arrival.
        threads: cores that each model may use.
        truncation: how much of a text all models see; by default the least that one of them was made for.
        rounds: how often each is timed.
        budget: padded tokens of a batch.
        baselines: whether the first model also runs in arrival order, in ONNX Runtime and in OpenVINO.
        memory: whether peak memory is measured, in a process for each model.
        ceilings: whether the machine's best matrix products are measured too.
        bound_s: each measurement begins no further round after so many seconds, once there are three.
    """

    texts: Sequence[Text]
    threads: int
    truncation: Truncation | None = None
    rounds: int = 9
    budget: int = TOKENS_PER_BATCH
    baselines: bool = True
    memory: bool = True
    ceilings: bool = True
    bound_s: float = 120.0


def compare(models: Sequence[str], terms: BenchmarkConfig) -> dict[str, Any]:
    """Time models against the first of them, on the CPU.

    Args:
        models: folders or Hub ids, or artefacts. The same one twice shows the noise.
        terms: how.

    Raises:
        PlankwiseError: if a model cannot be read, or does not fit the texts.
    """
    return compare_subjects(given_models(models), terms)


def compare_subjects(subjects: Sequence[Subject], terms: BenchmarkConfig) -> dict[str, Any]:
    """Time models that have names against the first of them, on the CPU.

    Latency is that of one text of 32, 128 and 512 tokens, as far as all have positions, each with all threads.
    Throughput is that of the texts with their own lengths, sorted into batches under a budget of padded tokens, from as
    many threads at once as a runtime has streams. A speed-up is the median over rounds of the first model's time
    divided by the other's in the same round; `spread` gives the smallest and largest round. Models may differ in their
    labels: these do not matter to time.
    """
    with fixed_threads(terms.threads), TemporaryDirectory(prefix="plankwise-bench-") as scratch:
        opened = _open(subjects, "latency", terms)
        terms = dataclasses.replace(terms, truncation=terms.truncation or _shortest(opened))
        assert terms.truncation is not None
        for each in subjects:
            warn_if_other(terms.truncation, opened[each.name].own, each.name)
            check_positions(terms.truncation, opened[each.name].manifest.positions)
        if terms.baselines:
            added = fp32_baselines(subjects[0], Path(scratch), terms.truncation)
            subjects, opened = [*subjects, *added], {**opened, **_open(added, "latency", terms)}
        terms, thinned = _thinned(opened, terms)
        work = {each.name: _work(each, opened[each.name], terms) for each in subjects}
        log_texts_read("the texts", work[subjects[0].name].read)
        described = [_described(each, opened[each.name]) for each in subjects]
        with LoadMonitor() as watch:
            ceilings = gemm_ceilings(terms.threads) if terms.ceilings else {}
            figures = Measurements(REFERENCES, ceilings, terms.rounds, terms.bound_s)
            timings = _timings(subjects, opened, work, figures, terms)
        if terms.memory:
            for each, told in zip(subjects, described, strict=True):
                told["peak_memory_bytes"] = _peak(each, terms)
    warnings = [*thinned, *load_warnings(watch.load, terms.threads), *unsteady_warnings(figures.ratios)]
    for warning in warnings:
        logger.warning("%s", warning)
    return {
        "baseline": subjects[0].name,
        "device": "cpu",
        "threads": terms.threads,
        "rounds": terms.rounds,
        "batching": _batching(work[subjects[0].name], terms),
        "ceiling_gops": figures.ceilings,
        "models": described,
        **timings,
        "load": watch.load.as_json(),
        "warnings": warnings,
        "environment": environment(),
    }


def _open(subjects: Sequence[Subject], mode: Mode, terms: BenchmarkConfig) -> Opened:
    return {each.name: open_model(each.folder, mode, terms.threads, terms.truncation) for each in subjects}


def _shortest(opened: Opened) -> Truncation:
    return min((each.manifest.truncation for each in opened.values()), key=lambda truncation: truncation.max_length)


def _thinned(opened: Opened, terms: BenchmarkConfig) -> tuple[BenchmarkConfig, list[str]]:
    """Leave texts out, and say so, where the fewest rounds over all of them would take `LONGEST` times the bound."""
    most, seconds = len(terms.texts), LONGEST * terms.bound_s
    number = affordable(opened, terms.texts, FEWEST_ROUNDS + 2, seconds)
    if number >= most:
        return terms, []
    said = f"timed on {number} of {most} texts: with all of them a few rounds take longer than {seconds / 60:.0f} min"
    return dataclasses.replace(terms, texts=[terms.texts[index] for index in evenly(most, number)]), [said]


def _work(subject: Subject, deployed: Deployed, terms: BenchmarkConfig) -> Workload:
    check_unknown(terms.texts, deployed.tokenizer, subject.folder)
    manifest = deployed.manifest.model_copy(update={"truncation": terms.truncation})
    return workload(manifest, deployed.tokenizer, terms.texts, None if subject.naive else terms.budget)


def _timings(
    subjects: Sequence[Subject],
    opened: Opened,
    work: Mapping[str, Workload],
    figures: Measurements,
    terms: BenchmarkConfig,
) -> dict[str, Any]:
    """Time single texts, then all; models are closed in between, for the two modes are different settings."""
    asked = {each.name: opened[each.name] for each in subjects if not each.naive}
    lengths = latency_lengths([each.manifest for each in asked.values()])
    logger.info("timing %d models on single texts, then on %d texts", len(subjects), len(terms.texts))
    latency = {str(tokens): figures.latency(asked, tokens) for tokens in lengths}
    for each in subjects:
        if opened[each.name].manifest.runtime != "torch":
            asked.pop(each.name)
            opened[each.name] = _open([each], "throughput", terms)[each.name]
    return {"latency": latency, "throughput": figures.throughput(opened, work)}


def _described(subject: Subject, deployed: Deployed) -> dict[str, Any]:
    folder = Path(subject.folder)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else None
    return {
        "name": subject.name,
        "runtime": deployed.manifest.runtime,
        "precision": deployed.manifest.precision,
        "size_bytes": size,
        "peak_memory_bytes": None,
    }


def _peak(subject: Subject, terms: BenchmarkConfig) -> int | None:
    assert terms.truncation is not None
    budget = None if subject.naive else terms.budget
    return peak_memory(subject.folder, terms.truncation, list(terms.texts), budget, terms.threads)


def _batching(first: Workload, terms: BenchmarkConfig) -> dict[str, Any]:
    assert terms.truncation is not None
    low, high = np.percentile(first.lengths, [50, 95]).tolist()
    return {
        "texts": first.texts,
        "inputs": len(first.lengths),
        "tokens": {"p50": low, "p95": high, "most": max(first.lengths)},
        "budget": terms.budget,
        "arrival_order": ARRIVAL_BATCH,
        "reading": dataclasses.asdict(terms.truncation),
        "texts_read": first.read.model_dump(),
    }
