"""Trials of two parameters, crossed with seeds, whose scores are a known function and noise."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

Score = Callable[[float, float, int], float]
KEYS = ("a", "b")
A, B = (0.1, 0.3, 0.5), (1, 2, 3, 4)


def crossed(score: Score, seeds: int = 3, noise: float = 0.0, draw: int = 0) -> list[dict[str, Any]]:
    generator = np.random.default_rng(draw)
    return [
        {"a": a, "b": b, "seed": seed, "score": score(a, b, seed) + noise * generator.standard_normal()}
        for a, b, seed in itertools.product(A, B, range(seeds))
    ]
