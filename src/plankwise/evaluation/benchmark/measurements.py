"""Latency and throughput of models that are open, taking turns, and what follows from the times."""

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
from plankwise.evaluation.benchmark.torch_pair import LATENCY_REPEATS, LATENCY_TOKENS
from plankwise.evaluation.benchmark.workload import Workload, one_text

REST_S = 0.02  # longer than idle threads of torch and ONNX Runtime wait busily for more work
Seconds = dict[str, list[float]]


@dataclass
class Measurements:
    """What is measured of all models, and the ratios that show how steady the machine was.

    Attributes:
        references: names of those that every model is also held against; the first of all always is one.
        ceilings: best of plain matrix products, 10⁹ operations a second, by precision.
        rounds: interleaved rounds.
        bound_s: each measurement begins no further round after so many seconds, but three there are.
        ratios: the time of the first model over that of another, by round.
    """

    references: Sequence[str]
    ceilings: Mapping[str, float | None]
    rounds: int
    bound_s: float | None = None
    ratios: dict[str, list[float]] = field(default_factory=dict)

    def latency(self, opened: Mapping[str, Deployed], tokens: int) -> dict[str, Any]:
        """Time one text of so many tokens: p50 and p95 in milliseconds."""
        runs = {name: _caller(each, tokens) for name, each in opened.items()}
        seconds = take_turns_in_runs(runs, self.rounds, LATENCY_REPEATS, REST_S, self.bound_s)
        middle = {name: [statistics.median(each) for each in rounds] for name, rounds in seconds.items()}
        self._note(middle, f"at 1×{tokens}")
        found = {}
        for name, rounds in seconds.items():
            all_ms = [1000 * one for each in rounds for one in each]
            low, high = np.percentile(all_ms, [50, 95]).tolist()
            shares = share_of_ceiling(opened[name].manifest, [(1, tokens)], low / 1000, self.ceilings)
            found[name] = {"p50_ms": low, "p95_ms": high, **self._against(middle, name), **shares}
        return found

    def throughput(self, opened: Mapping[str, Deployed], work: Mapping[str, Workload]) -> dict[str, Any]:
        """Time all texts in batches, each model from as many threads as its runtime has streams."""
        with ExitStack() as stack:
            crews = {name: stack.enter_context(StreamPool(each.runtime)) for name, each in opened.items()}
            for name, crew in crews.items():
                crew.warm_up(work[name].batches)
            runs = {name: partial(crew.run, work[name].batches) for name, crew in crews.items()}
            seconds = take_turns(runs, self.rounds, REST_S, self.bound_s)
        self._note(seconds, "on the texts")
        return {name: self._of_texts(name, opened[name], work[name], seconds) for name in seconds}

    def _of_texts(self, name: str, deployed: Deployed, given: Workload, seconds: Seconds) -> dict[str, Any]:
        middle = statistics.median(seconds[name])
        return {
            "ms_per_text": 1000 * middle / given.texts,
            "texts_per_second": given.texts / middle,
            "streams": deployed.runtime.streams,
            "batches": len(given.batches),
            "rounds": len(seconds[name]),
            **self._against(seconds, name),
            **share_of_ceiling(deployed.manifest, given.shapes, middle, self.ceilings),
        }

    def _against(self, seconds: Seconds, name: str) -> dict[str, Any]:
        """Give a model's speed-up over the first one, and over each reference."""
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
    """Give the lengths that all models have positions for; where these are unknown, that they were exported for."""
    most = min(each.positions or each.truncation.max_length for each in manifests)
    return [tokens for tokens in LATENCY_TOKENS if tokens <= most]


def share_of_ceiling(
    manifest: Manifest, shapes: Sequence[tuple[int, int]], seconds: float, ceilings: Mapping[str, float | None]
) -> dict[str, Any]:
    """Give the operations a second, 10⁹, and what share of the best plain matrix products of their kind that is.

    Args:
        manifest: of the model.
        shapes: texts and tokens of each batch, padded.
        seconds: that they took together.
        ceilings: by precision, 10⁹ operations a second.
    """
    ceiling = ceilings.get(arithmetic_of(manifest.precision))
    if manifest.geometry is None or ceiling is None:
        return {"gops": None, "percent_of_ceiling": None}
    gops = operations(manifest.geometry, shapes) / seconds / 1e9
    return {"gops": gops, "percent_of_ceiling": 100 * gops / ceiling}


def _caller(deployed: Deployed, tokens: int) -> Callable[[], None]:
    inputs = one_text(deployed.manifest, deployed.tokenizer, tokens)

    def run() -> None:
        deployed.runtime(inputs)

    return run
