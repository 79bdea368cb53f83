"""How near a model comes to what the machine can multiply: its operations a second against the best of plain GEMMs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from plankwise.core.runtime import fixed_threads
from plankwise.deploy.manifest import Geometry

SIDES = (1024, 2048)
REPEATS = 7


def gemm_ceilings(threads: int) -> dict[str, float]:
    """Measure the most operations a second that square matrix products reach on the CPU, 10⁹ a second, by precision.

    It is the best of several runs at several sizes in torch, which calls oneDNN: a ceiling, not an average. A
    precision that torch cannot multiply here is left out.
    """
    with torch.inference_mode(), fixed_threads(threads):
        found = {name: max(_best(name, side) for side in SIDES) for name in ("fp32", "bf16", "int8")}
    return {name: value for name, value in found.items() if value > 0}


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


def _best(precision: str, side: int) -> float:
    run = _product(precision, side)
    try:
        run()
    except (RuntimeError, NotImplementedError):
        return 0.0
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds) / 1e9


def _product(precision: str, side: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    if precision == "int8":
        one, other = (torch.randint(-99, 99, (side, side), dtype=torch.int8, generator=generator) for _ in range(2))
        return lambda: torch._int_mm(one, other)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = (torch.randn(side, side, generator=generator).to(kind) for _ in range(2))
    return lambda: left @ right
