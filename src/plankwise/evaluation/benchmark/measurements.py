"""Latency and throughput of open models, timed in turns, and what follows from the times."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from plankwise.core.timing import ratio, ratios_of, take_turns, take_turns_in_runs
from plankwise.deploy.deployed import Deployed
from plankwise.deploy.manifest import Manifest
from plankwise.evaluation.benchmark.peak_gemm import arithmetic_of, operations
from plankwise.evaluation.benchmark.stream_pool import StreamPool
from plankwise.evaluation.benchmark.workload import Workload, one_text

LATENCY_TOKENS = (32, 128, 512)
LATENCY_REPEATS = 5  # in a row, in every round
REST_S = 0.02  # longer than idle threads of torch and ONNX Runtime busy-wait for more work
Seconds = dict[str, list[float]]


@dataclass
class Measurements:
    """The measurements of one benchmark, and the ratios that show how steady the machine was.

    Attributes:
        references: names of models with which every other is compared, beside the first model of all.
        peak_gops: the peak GEMM, in 10⁹ operations per second, by precision.
        rounds: interleaved rounds.
        bound_s: a measurement begins no further round after so many seconds, once there are three.
        ratios: the time of the first model over that of another, of each round, by what was measured.
    """

    references: Sequence[str]
    peak_gops: Mapping[str, float | None]
    rounds: int
    bound_s: float | None = None
    ratios: dict[str, list[float]] = field(default_factory=dict)

    def latency(self, opened: Mapping[str, Deployed], tokens: int) -> dict[str, Any]:
        """Time one text of `tokens` tokens: p50 and p95 in milliseconds, by model."""
        runs = {name: _caller(each, tokens) for name, each in opened.items()}
        seconds = take_turns_in_runs(runs, self.rounds, LATENCY_REPEATS, _rest(opened), self.bound_s)
        medians = {name: [statistics.median(each) for each in rounds] for name, rounds in seconds.items()}
        self._note(medians, f"at 1×{tokens}")
        found = {}
        for name, rounds in seconds.items():
            all_ms = [1000 * one for each in rounds for one in each]
            p50_ms, p95_ms = np.percentile(all_ms, [50, 95]).tolist()
            shares = share_of_peak(opened[name].manifest, [(1, tokens)], p50_ms / 1000, self.peak_gops)
            found[name] = {"p50_ms": p50_ms, "p95_ms": p95_ms, **self._against(medians, name), **shares}
        return found

    def throughput(self, opened: Mapping[str, Deployed], work: Mapping[str, Workload]) -> dict[str, Any]:
        """Time all texts in batches, each model from as many threads as its runtime has streams."""
        with ExitStack() as stack:
            pools = {name: stack.enter_context(StreamPool(each.runtime)) for name, each in opened.items()}
            for name, pool in pools.items():
                pool.warm_up(work[name].batches)
            runs = {name: partial(pool.run, work[name].batches) for name, pool in pools.items()}
            seconds = take_turns(runs, self.rounds, _rest(opened), self.bound_s)
        self._note(seconds, "on the texts")
        return {name: self._of_texts(name, opened[name], work[name], seconds) for name in seconds}

    def _of_texts(self, name: str, deployed: Deployed, given: Workload, seconds: Seconds) -> dict[str, Any]:
        median_s = statistics.median(seconds[name])
        return {
            "ms_per_text": 1000 * median_s / given.texts,
            "texts_per_second": given.texts / median_s,
            "streams": deployed.runtime.streams,
            "batches": len(given.batches),
            "rounds": len(seconds[name]),
            **self._against(seconds, name),
            **share_of_peak(deployed.manifest, given.shapes, median_s, self.peak_gops),
        }

    def _against(self, seconds: Seconds, name: str) -> dict[str, Any]:
        """Compute a model's speed-up over the first one, and over each reference."""
        first = next(iter(seconds))
        others = [each for each in self.references if each in seconds and each != name]
        return {
            **ratio(seconds[first], seconds[name]),
            "over": {each: ratio(seconds[each], seconds[name]) for each in others},
        }

    def _note(self, seconds: Seconds, where: str) -> None:
        first, *others = seconds
        for name in others:
            self.ratios[f"{name} {where}"] = ratios_of(seconds[first], seconds[name])


def latency_lengths(manifests: Sequence[Manifest]) -> list[int]:
    """List the lengths that all models have positions for; if these are unknown, that they were exported for."""
    most = min(each.positions or each.truncation.max_length for each in manifests)
    return [tokens for tokens in LATENCY_TOKENS if tokens <= most]


def share_of_peak(
    manifest: Manifest, shapes: Sequence[tuple[int, int]], seconds: float, peak_gops: Mapping[str, float | None]
) -> dict[str, Any]:
    """Compute 10⁹ operations per second, and what percentage of the peak GEMM of the same arithmetic that is.

    Args:
        manifest: of the model.
        shapes: texts and tokens of each batch, padded.
        seconds: that they took together.
        peak_gops: by precision, in 10⁹ operations per second.
    """
    peak = peak_gops.get(arithmetic_of(manifest.precision))
    if manifest.geometry is None or peak is None:
        return {"gops": None, "percent_of_ceiling": None}
    gops = operations(manifest.geometry, shapes) / seconds / 1e9
    return {"gops": gops, "percent_of_ceiling": 100 * gops / peak}


def _rest(opened: Mapping[str, Deployed]) -> float:
    """Return the pause before each run; one thread alone has no others that busy-wait."""
    return REST_S if any(each.runtime.threads > 1 for each in opened.values()) else 0.0


def _caller(deployed: Deployed, tokens: int) -> Callable[[], object]:
    return partial(deployed.runtime, one_text(deployed.manifest, deployed.tokenizer, tokens))
