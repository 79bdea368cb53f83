"""Timing that does not flatter: variants take turns within every round, and the answer is a median of ratios."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)
Run = Callable[[], None]
FEWEST_ROUNDS = 3


def take_turns(
    variants: Mapping[str, Run], rounds: int, rest_s: float = 0.0, bound_s: float | None = None
) -> dict[str, list[float]]:
    """Run every variant once untimed, then all of them in each round, in alternating order.

    Args:
        variants: what to time, by name.
        rounds: how often each is timed.
        rest_s: pause before each run, in which the threads of the one before stop to wait busily for more work.
        bound_s: no further round begins after so many seconds, once there are `FEWEST_ROUNDS`.

    Returns:
        Seconds of each run, by name.
    """
    for run in variants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in _rounds(rounds, bound_s):
        for name in _order(variants, number):
            time.sleep(rest_s)
            seconds[name].append(_timed(variants[name]))
    return seconds


def take_turns_in_runs(
    variants: Mapping[str, Run], rounds: int, repeats: int, rest_s: float = 0.0, bound_s: float | None = None
) -> dict[str, list[list[float]]]:
    """Time each variant: in every round one untimed run and so many timed ones right after it; seconds, by round.

    So one request after the other meets warm threads and caches, as under steady use, and not what the variant before
    has left behind. `bound_s` is as in `take_turns`.
    """
    seconds: dict[str, list[list[float]]] = {name: [] for name in variants}
    for number in _rounds(rounds, bound_s):
        for name in _order(variants, number):
            time.sleep(rest_s)
            variants[name]()
            seconds[name].append([_timed(variants[name]) for _ in range(repeats)])
    return seconds


def ratios_of(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide the times of one variant by those of another, round by round."""
    return [one / other for one, other in zip(above, below, strict=True)]


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """Compute the median of the rounds' ratios and their spread."""
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


def _timed(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
