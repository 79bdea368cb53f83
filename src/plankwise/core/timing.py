"""Timing in turns: variants alternate within every round, and a speed-up is the median of the rounds' ratios.

A machine that slows down for a while then slows all variants of a round alike, and the ratio of the round stays right.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)
Run = Callable[[], object]
FEWEST_ROUNDS = 3


def take_turns(
    variants: Mapping[str, Run],
    rounds: int,
    rest_s: float = 0.0,
    bound_s: float | None = None,
    *,
    on_round: Callable[[int], None] | None = None,
) -> dict[str, list[float]]:
    """Run every variant once untimed, then all of them in each round, in alternating order.

    Args:
        variants: what to time, by name. Work that a device does asynchronously must be waited for inside.
        rounds: how often each is timed.
        rest_s: pause before each run, in seconds, in which idle threads of the previous variant stop busy-waiting.
        bound_s: no further round begins after so many seconds, once there are `FEWEST_ROUNDS`.
        on_round: called with the number of finished rounds, untimed; for progress bars.

    Returns:
        Seconds of each run, by name.
    """
    for run in variants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in _rounds(rounds, bound_s):
        for name in _order(variants, number):
            time.sleep(rest_s)
            seconds[name].append(seconds_of(variants[name]))
        if on_round is not None:
            on_round(number + 1)
    return seconds


def take_turns_in_runs(
    variants: Mapping[str, Run], rounds: int, repeats: int, rest_s: float = 0.0, bound_s: float | None = None
) -> dict[str, list[list[float]]]:
    """Time each variant several times in a row, in every round, after one untimed run.

    Each request then meets warm threads and caches, as under steady use, and not what the previous variant left in
    them. The arguments are those of `take_turns`.

    Returns:
        Seconds by name, a list of `repeats` for each round.
    """
    seconds: dict[str, list[list[float]]] = {name: [] for name in variants}
    for number in _rounds(rounds, bound_s):
        for name in _order(variants, number):
            time.sleep(rest_s)
            variants[name]()
            seconds[name].append([seconds_of(variants[name]) for _ in range(repeats)])
    return seconds


def seconds_of(run: Run) -> float:
    """Return the seconds that one run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def fastest(run: Run, repeats: int, bound_s: float | None = None) -> float:
    """Return the seconds of the fastest of several runs in a row.

    Args:
        run: what to time.
        repeats: the most runs; there is always one.
        bound_s: no further run begins that would end later than this, judged by the fastest so far.
    """
    end = None if bound_s is None else time.perf_counter() + bound_s
    best = seconds_of(run)
    for _ in range(repeats - 1):
        if end is not None and time.perf_counter() + best > end:
            break
        best = min(best, seconds_of(run))
    return best


def ratios_of(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide the times of one variant by those of another, round by round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """Compute the median of the rounds' ratios (`speedup`), and the smallest and largest of them (`spread`)."""
    # The ratio of two medians would compare different rounds, and with them different states of the machine.
    ratios = ratios_of(above, below)
    return {"speedup": statistics.median(ratios), "spread": [min(ratios), max(ratios)]}


def _rounds(rounds: int, bound_s: float | None) -> Iterator[int]:
    begun = time.perf_counter()
    for number in range(rounds):
        if bound_s is not None and number >= FEWEST_ROUNDS and time.perf_counter() - begun >= bound_s:
            logger.warning("timed %d rounds instead of %d: they took longer than %.0f s", number, rounds, bound_s)
            return
        yield number


def _order(variants: Mapping[str, Run], number: int) -> list[str]:
    names = list(variants)
    return names if number % 2 == 0 else names[::-1]
