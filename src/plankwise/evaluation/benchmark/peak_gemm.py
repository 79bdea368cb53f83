"""How near a model comes to what the machine can multiply: its operations per second against the peak of plain GEMMs.

A GEMM is a general matrix product; it is what the linear layers of a Transformer spend their time in.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from plankwise.core.hardware import bf16_is_fast, fixed_threads, saturates
from plankwise.core.timing import fastest
from plankwise.deploy.manifest import Geometry

logger = logging.getLogger(__name__)
SIDES = (128, 256, 512, 1024, 2048)  # each predicts the cost of the next; products of half the last side and more count
REPEATS = 7
SECONDS = 3.0  # for each precision
Product = Callable[[str, int], Callable[[], Tensor]]


def peak_gemm(
    threads: int,
    *,
    sides: Sequence[int] = SIDES,
    native: Mapping[str, bool] | None = None,
    product: Product | None = None,
) -> dict[str, float | None]:
    """Measure the most operations per second that square matrix products reach on the CPU, in 10⁹, by precision.

    Torch multiplies, which calls oneDNN. The best of several runs at several sizes counts: it is a peak, not a mean.

    Args:
        threads: of torch.
        sides: of the matrices, in rising order.
        native: whether the processor has instructions for a precision, by its name; by default as detected.
        product: makes the product of two matrices for a precision and a side; by default with torch.

    Returns:
        None for a precision that the processor only emulates, that torch cannot multiply, or whose large products take
        longer than `SECONDS`: emulated arithmetic takes minutes and says nothing about the peak.
    """
    if native is None:
        native = {"fp32": True, "bf16": bf16_is_fast(torch.device("cpu")), "int8": not saturates()}
    with torch.inference_mode(), fixed_threads(threads):
        make = product or _product
        found = {name: _peak(name, sides, make) if has_it else None for name, has_it in native.items()}
    lacking = [name for name, value in found.items() if value is None]
    if lacking:
        logger.info("no peak GEMM for %s: this processor does not multiply it fast", " and ".join(lacking))
    return found


def arithmetic_of(precision: str) -> str:
    """Name the peak that a precision is compared with: that of the fastest arithmetic that its weights allow on a CPU.

    With fp16 weights CPUs compute in fp32. Weights of int8 or int4 alone allow int8, which a runtime may not use.
    """
    if precision.startswith("int"):
        return "int8"
    return "bf16" if precision == "bf16" else "fp32"


def operations(geometry: Geometry, shapes: Iterable[tuple[int, int]]) -> int:
    """Count the floating-point operations of batches, including those on padding, which a runtime computes as well.

    Args:
        geometry: of the model.
        shapes: texts and tokens of each batch.
    """
    return sum(texts * tokens * (geometry.linear_flops + geometry.attention_flops * tokens) for texts, tokens in shapes)


def _peak(precision: str, sides: Sequence[int], product: Product) -> float | None:
    """Time larger and larger products as long as they fit into `SECONDS`; None if none of the large ones does."""
    end, run_s, best = time.perf_counter() + SECONDS, 0.0, 0.0
    for side in sides:
        # Twice the side means 2³ as many operations; there is an untimed run and at least one that counts.
        if time.perf_counter() + 2 * 8 * run_s > end:
            return None if 2 * side <= sides[-1] else best
        run = product(precision, side)
        try:
            run()
        except (RuntimeError, NotImplementedError):
            return None
        run_s = fastest(run, REPEATS, end - time.perf_counter())
        best = max(best, 2 * side**3 / run_s / 1e9)
    return best


def _product(precision: str, side: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    if precision == "int8":
        one, other = (torch.randint(-99, 99, (side, side), dtype=torch.int8, generator=generator) for _ in range(2))
        return lambda: torch._int_mm(one, other)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = (torch.randn(side, side, generator=generator).to(kind) for _ in range(2))
    return lambda: left @ right
