"""Whether the machine was quiet while something was timed: what other processes computed, how far rounds differed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import numpy as np
import psutil

OTHERS_ALLOWED = 0.05  # of the cores in use
UNSTEADY = 0.1  # a quartile range, as a share of the median
_IDLE = ("idle", "iowait", "guest", "guest_nice")  # guests are counted under user and nice already


@dataclass(frozen=True)
class Load:
    """What a machine did during an interval.

    Attributes:
        seconds: length of the interval.
        cores: that the machine has.
        own: cores that this process kept busy, on average.
        others: cores that everything else kept busy, stolen time included; None where that cannot be read.
        load_average: processes that wanted to run in the minute before the interval began, and before it ended.
    """

    seconds: float
    cores: int
    own: float
    others: float | None
    load_average: tuple[float, float]

    def as_json(self) -> dict[str, Any]:
        """Give it for a document."""
        return asdict(self)


class LoadMonitor:
    """Watches the machine while it is entered; afterwards `load` says what was seen."""

    load: Load

    def __enter__(self) -> LoadMonitor:
        self._start, self._average = _clocks(), os.getloadavg()[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds, own, busy = (end - start for start, end in zip(self._start, _clocks(), strict=True))
        cores = os.cpu_count() or 1
        others = max(0.0, busy - own) / seconds if busy > 0 else None
        self.load = Load(seconds, cores, own / seconds, others, (self._average, os.getloadavg()[0]))


def load_warnings(load: Load, threads: int) -> list[str]:
    """Say in words what about the load makes timings with so many threads doubtful; nothing if all is well.

    What others compute does no harm as long as enough cores are left. Where only load averages are known, the one
    before the interval has to leave room for the threads; that at its end would count this process too.
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
    """Name the comparisons whose rounds differ too much: the middle half of their ratios spans over 10 % of the median.

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


def _clocks() -> tuple[float, float, float]:
    """Read wall time, CPU time of this process, and CPU time of all, in seconds."""
    own, all_ = psutil.Process().cpu_times(), psutil.cpu_times()._asdict()
    busy = sum(value for name, value in all_.items() if name not in _IDLE)
    return time.perf_counter(), own.user + own.system, busy
