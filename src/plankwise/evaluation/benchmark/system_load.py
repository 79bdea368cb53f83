"""Whether the machine was quiet during a timing: what other processes computed, and how far the rounds differed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import psutil

OTHERS_ALLOWED = 0.05  # of the cores in use
UNSTEADY = 0.1  # an interquartile range, as a share of the median
_IDLE = ("idle", "iowait", "guest", "guest_nice")  # guests are counted under user and nice already


class Clocks(NamedTuple):
    """Wall time, CPU time of this process and CPU time of all processes, in seconds since some fixed moment."""

    wall: float
    own: float
    busy: float


@dataclass(frozen=True)
class Load:
    """What a machine did during an interval.

    Attributes:
        seconds: length of the interval.
        cores: that the machine has.
        own: cores that this process kept busy, on average.
        others: cores that everything else kept busy, stolen time included; None if it cannot be read.
        load_average: of the last minute (processes that run or wait to run), before and at the end of the interval.
    """

    seconds: float
    cores: int
    own: float
    others: float | None
    load_average: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        """Return the fields, for a JSON document."""
        return asdict(self)


def read_clocks() -> Clocks:
    """Read the clocks of this machine."""
    own, everyone = psutil.Process().cpu_times(), psutil.cpu_times()._asdict()
    busy = sum(value for name, value in everyone.items() if name not in _IDLE)
    return Clocks(time.perf_counter(), own.user + own.system, busy)


class LoadMonitor:
    """Observes the system load inside a `with` block; `load` holds it afterwards."""

    load: Load

    def __init__(self, clocks: Callable[[], Clocks] = read_clocks) -> None:
        self._read = clocks

    def __enter__(self) -> LoadMonitor:
        self._start, self._average = self._read(), os.getloadavg()[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds, own, busy = (end - start for start, end in zip(self._start, self._read(), strict=True))
        cores = os.cpu_count() or 1
        # In some containers the machine's clocks do not advance; they then say nothing about other processes.
        others = max(0.0, busy - own) / seconds if busy > 0 else None
        self.load = Load(seconds, cores, own / seconds, others, (self._average, os.getloadavg()[0]))


def load_warnings(load: Load, threads: int) -> list[str]:
    """Describe what about the load makes timings with so many threads doubtful; empty if nothing does.

    Other processes do no harm as long as enough cores are left. If only load averages are known, the one before the
    interval has to leave room for the threads; the one at its end would count this process too.
    """
    free = load.cores - threads
    if load.others is not None:
        if load.others <= max(0, free) + OTHERS_ALLOWED * threads:
            return []
        return [
            f"other processes kept {load.others:.2f} of {load.cores} cores busy while {threads} threads were timed: "
            "figures are too slow and ratios uncertain"
        ]
    if load.load_average[0] <= max(0, free) + 0.5:
        return []
    return [
        f"the load average was {load.load_average[0]:.2f} on {load.cores} cores before {threads} threads were timed: "
        "figures may be too slow and ratios uncertain"
    ]


def unsteady_warnings(ratios: Mapping[str, Sequence[float]]) -> list[str]:
    """Name the comparisons whose rounds differ too much: their interquartile range is over 10 % of the median.

    Args:
        ratios: of the rounds, by what was compared.
    """
    spans = {name: _span(values) for name, values in ratios.items()}
    wide = [f"{name} ({span:.0%})" for name, span in spans.items() if span > UNSTEADY]
    if not wide:
        return []
    return [f"rounds differ too much to trust the medians; the middle half of their ratios spans: {', '.join(wide)}"]


def _span(values: Sequence[float]) -> float:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float((high - low) / middle)
