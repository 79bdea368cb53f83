"""How near a model comes to what the machine can multiply: its operations a second against the best of plain GEMMs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from plankwise.core.hardware import bf16_is_fast, fixed_threads, saturates
from plankwise.deploy.manifest import Geometry

logger = logging.getLogger(__name__)
SIDES = (128, 256, 512, 1024, 2048)  # each tells what the next will cost; from half of the last on they are a ceiling
REPEATS = 7
SECONDS = 3.0  # for each precision


def gemm_ceilings(threads: int) -> dict[str, float | None]:
    """Measure the most operations a second that square matrix products reach on the CPU, 10⁹ a second, by precision.

    It is the best of several runs at several sizes in torch, which calls oneDNN: a ceiling, not an average. None where
    the processor has no instructions for a precision, torch cannot multiply it, or large products take longer than
    `SECONDS`: emulated arithmetic takes minutes and is no ceiling.
    """
    native = {
        "fp32": True,
        "bf16": bf16_is_fast(torch.device("cpu")),
        "int8": not saturates(),
    }
    with torch.inference_mode(), fixed_threads(threads):
        found = {name: _best(name) if has_it else None for name, has_it in native.items()}
    lacking = [name for name, value in found.items() if value is None]
    if lacking:
        logger.info("no ceiling for %s: this processor does not multiply it fast", " and ".join(lacking))
    return found


def arithmetic_of(precision: str) -> str:
    """Name the ceiling that a precision is held against: the fastest arithmetic that its weights allow on a CPU.

    With fp16 weights CPUs compute in fp32; weights of int8 or int4 alone allow int8, which a runtime may not use.
    """
    if precision.startswith("int"):
        return "int8"
    return "bf16" if precision == "bf16" else "fp32"


def operations(geometry: Geometry, shapes: Iterable[tuple[int, int]]) -> int:
    """Count the floating-point operations of batches, padding included, for a runtime multiplies that too.

    Args:
        geometry: of the model.
        shapes: texts and tokens of each batch.
    """
    return sum(texts * tokens * (geometry.linear_flops + geometry.attention_flops * tokens) for texts, tokens in shapes)


def _best(precision: str) -> float | None:
    """Time larger and larger products as long as they fit into `SECONDS`; None if none of the large ones does."""
    end, run_s, best = time.perf_counter() + SECONDS, 0.0, 0.0
    for side in SIDES:
        if time.perf_counter() + 2 * 8 * run_s > end:  # an untimed run and one that counts, of 2³ as many operations
            return None if 2 * side <= SIDES[-1] else best
        run = _product(precision, side)
        try:
            run()
        except (RuntimeError, NotImplementedError):
            return None
        run_s = _fastest(run, end)
        best = max(best, 2 * side**3 / run_s / 1e9)
    return best


def _fastest(run: Callable[[], object], end: float) -> float:
    """Time a run up to `REPEATS` times, but not beyond `end`; seconds of the fastest."""
    seconds: list[float] = []
    while len(seconds) < REPEATS and (not seconds or time.perf_counter() + min(seconds) <= end):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _product(precision: str, side: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    if precision == "int8":
        one, other = (torch.randint(-99, 99, (side, side), dtype=torch.int8, generator=generator) for _ in range(2))
        return lambda: torch._int_mm(one, other)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = (torch.randn(side, side, generator=generator).to(kind) for _ in range(2))
    return lambda: left @ right
