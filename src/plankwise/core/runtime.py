"""What a run stands on: seeds, devices, processes, and a description of the machine for the record."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from plankwise.core.errors import PlankwiseError, TrainingError

CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "bf16")
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")  # each adds products of 8-bit numbers in 32 bits
LIBRARIES = ("plankwise", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "scikit-learn")


def mix_seed(*parts: int | str) -> int:
    """Fold any parts into one seed of 63 bits; equal parts give the equal seed on every machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def default_device() -> torch.device:
    """Name the device that training will use: that of this process."""
    device: torch.device = _processes().device
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


def is_main_process() -> bool:
    """Tell whether this process is the one that writes files."""
    return bool(_processes().is_main_process)


def process_count() -> int:
    """Count the processes of this run."""
    return int(_processes().num_processes)


def wait_for_everyone() -> None:
    """Let all processes meet here."""
    _processes().wait_for_everyone()


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


def _processes() -> PartialState:
    """Describe this process and those beside it; without an accelerator they talk over the CPU."""
    return PartialState(cpu=not torch.accelerator.is_available())


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


def agree(value: str, what: str) -> None:
    """Make sure that every process holds the same `value`.

    Raises:
        TrainingError: if they differ; the model would be trained on contradictions.
    """
    values = gather_object([value])
    if len(set(values)) > 1:
        raise TrainingError(f"{what} differ between processes")


def fail_together(fault: PlankwiseError | None) -> None:
    """Raise the fault that one process met in all of them, so that none waits for another that has gone."""
    for each in gather_object([fault]):
        if each is not None:
            raise each
