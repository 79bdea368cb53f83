"""Schedules: pure functions of training progress in [0, 1], so that a resumed run sees the same values."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def linear(start: float, full_at: float) -> Schedule:
    """Rise from `start` to 1 in a straight line, reached at progress `full_at`.

    Theseus' replacement curriculum p_t = min(1, k·t + b) with b = `start` and k = (1 − b) / (f·T) (Xu et al. 2020,
    arXiv 2002.02925), written over progress t/T and with f = `full_at`.
    """
    return lambda progress: 1.0 if progress >= full_at else start + (1.0 - start) * progress / full_at


def constant(value: float, full_at: float) -> Schedule:
    """Stay at `value` until progress `full_at`, then 1."""
    return lambda progress: 1.0 if progress >= full_at else value


def cosine(start: float, full_at: float) -> Schedule:
    """Rise from `start` to 1 along half a cosine wave: slow, fast, slow; 1 from progress `full_at` on."""

    def rate(progress: float) -> float:
        if progress >= full_at:
            return 1.0
        return start + (1.0 - start) * (1.0 - math.cos(math.pi * progress / full_at)) / 2.0

    return rate


def cubic(value: float, start: float, end: float) -> Schedule:
    """Stay at 0 until progress `start`, then rise to `value` at progress `end`, fast at first and then more slowly.

    The sparsity of gradual pruning, s = v − v · (1 − (p − start) / (end − start))³ (Zhu & Gupta 2017, arXiv
    1710.01878, with an initial sparsity of 0), written over progress p.
    """

    def share(progress: float) -> float:
        if progress >= end:
            return value
        return value - value * (1.0 - max(0.0, progress - start) / (end - start)) ** 3

    return share


SCHEDULES: dict[str, Callable[[float, float], Schedule]] = {"linear": linear, "constant": constant, "cosine": cosine}
