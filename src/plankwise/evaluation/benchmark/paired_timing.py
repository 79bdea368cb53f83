"""Models timed in turns against one of them, with an interval for each speed-up: what a search decides by."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from plankwise.core.records import Interval
from plankwise.core.timing import ratios_of, take_turns
from plankwise.data.batching.inputs import Text
from plankwise.data.batching.token_budget import TOKENS_PER_BATCH
from plankwise.deploy.deployed import Deployed, open_model
from plankwise.deploy.runtimes import Mode
from plankwise.evaluation.benchmark.measurements import REST_S
from plankwise.evaluation.benchmark.stream_pool import StreamPool
from plankwise.evaluation.benchmark.system_load import LoadMonitor, load_warnings
from plankwise.evaluation.benchmark.workload import Workload, affordable, workload
from plankwise.evaluation.intervals import draw_counts, interval_of

ROUNDS, SECONDS, MAX_TEXTS = 9, 20.0, 256
RESAMPLES = 1000


@dataclass(frozen=True)
class PairedTiming:
    """How fast one model is.

    Attributes:
        ms_per_text: median over the rounds.
        speedup: time of the reference divided by this model's: median over the rounds, and its 95 % interval.
        texts: in a round.
        seconds: of each round.
        warnings: what makes the figures doubtful, such as other processes.
    """

    ms_per_text: float
    speedup: Interval
    texts: int
    seconds: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()

    def over(self, other: PairedTiming) -> Interval:
        """Return how many times as fast this model is as another one of the same rounds."""
        return median_ratio(other.seconds, self.seconds)


def time_pairs(
    folders: Mapping[str, str | Path],
    texts: Sequence[Text],
    *,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    max_texts: int = MAX_TEXTS,
    opener: Callable[..., Deployed] = open_model,
) -> dict[str, PairedTiming]:
    """Time models in throughput mode on all cores, all of them in every round, against the first.

    Args:
        folders: of models and artefacts, by name; the first is the reference.
        texts: to run, in order of preference; as many are used as `seconds` allow.
        rounds: in turns.
        seconds: about what all rounds may take.
        max_texts: in a round, at most.
        opener: opens a folder.
    """
    mode: Mode = "throughput"
    opened = {name: opener(folder, mode) for name, folder in folders.items()}
    used = texts[: min(max_texts, affordable(opened, texts, rounds + 2, seconds))]
    work = {name: workload(each.manifest, each.tokenizer, used, TOKENS_PER_BATCH) for name, each in opened.items()}
    with LoadMonitor() as monitor:
        taken = _take_turns(opened, work, rounds, seconds)
    warnings = tuple(load_warnings(monitor.load, max(each.runtime.threads for each in opened.values())))
    first = next(iter(taken))
    return {
        name: PairedTiming(
            ms_per_text=1000 * statistics.median(times) / len(used),
            speedup=median_ratio(taken[first], times),
            texts=len(used),
            seconds=tuple(times),
            warnings=warnings,
        )
        for name, times in taken.items()
    }


def median_ratio(above: Sequence[float], below: Sequence[float], seed: int = 0) -> Interval:
    """Return the median of the rounds' ratios with its 95 % bootstrap interval over the rounds.

    Args:
        above: seconds of the reference, [rounds].
        below: seconds of the other one in the same rounds.
        seed: of the resampling.
    """
    ratios = np.array(ratios_of(above, below))
    counts = draw_counts(np.random.default_rng(seed), len(ratios), RESAMPLES)
    medians = [float(np.median(np.repeat(ratios, row))) for row in counts]
    return interval_of(float(np.median(ratios)), np.array(medians))


def _take_turns(
    opened: Mapping[str, Deployed], work: Mapping[str, Workload], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Run all texts of each model from as many threads as its runtime has streams."""
    with ExitStack() as stack:
        pools = {name: stack.enter_context(StreamPool(each.runtime)) for name, each in opened.items()}
        for name, pool in pools.items():
            pool.warm_up(work[name].batches)
        runs = {name: partial(pool.run, work[name].batches) for name, pool in pools.items()}
        rest = REST_S if any(each.runtime.threads > 1 for each in opened.values()) else 0.0
        return take_turns(runs, rounds, rest, seconds)
