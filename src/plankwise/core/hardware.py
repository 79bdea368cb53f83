"""The machine: its device, its processor's instructions, and a description of both for the record."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from plankwise.core.distributed import process_count, processes

CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "bf16")
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")  # each adds products of 8-bit numbers in 32 bits
LIBRARIES = ("plankwise", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "scikit-learn")


def default_device() -> torch.device:
    """Name the device that training will use: that of this process."""
    device: torch.device = processes().device
    return device


def bf16_is_fast(device: torch.device) -> bool:
    """Tell whether `device` multiplies bfloat16 natively; emulation would be slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(cpu_flags()))
    return False


@contextmanager
def fixed_threads(threads: int | None) -> Iterator[int]:
    """Fix torch's threads for a while and give their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def environment() -> dict[str, Any]:
    """Describe hardware and versions, for the record."""
    described: dict[str, Any] = {
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in LIBRARIES}},
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count(), "flags": [f for f in CPU_FLAGS if f in cpu_flags()]},
        "threads": torch.get_num_threads(),
        "processes": process_count(),
        "memory_bytes": _memory_bytes(),
        "gpu": None,
    }
    if torch.cuda.is_available():
        described["gpu"] = {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return described


def version_of(name: str) -> str | None:
    """Give the version of an installed distribution; `None` where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_info(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def cpu_flags() -> list[str]:
    """Name the instructions that this processor has, as Linux spells them; none where that is unknown."""
    return (_cpu_info("flags") or _cpu_info("Features")).split()


def saturates() -> bool:
    """Check whether this processor may add products of 8-bit numbers in 16 bits, which overflow in full range."""
    return not set(INT8_FLAGS) & set(cpu_flags())


def _cpu_model() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
