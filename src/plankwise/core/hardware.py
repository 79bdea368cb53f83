"""The machine: its device, the instructions of its processor, and a description of both for the record."""

from __future__ import annotations

import functools
import logging
import os
import platform
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from plankwise.core.distributed import process_count, process_state

logger = logging.getLogger(__name__)
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "bf16")
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")  # each adds products of 8-bit numbers in 32 bits
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
LIBRARIES = ("plankwise", "torch", "transformers", "accelerate", "datasets", "tokenizers", "numpy", "scikit-learn")
_ARM_FLAGS = {"AdvSIMD": "asimd", "FEAT_DotProd": "asimddp", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16"}
_LINUX_NAMES = {name.replace("_", ""): name for name in CPU_FLAGS}  # elsewhere it is avx512vnni


def default_device() -> torch.device:
    """Return the device that training uses: that of this process."""
    device: torch.device = process_state().device
    return device


def bf16_is_fast(device: torch.device, flags: Collection[str] | None = None) -> bool:
    """Return whether `device` multiplies bfloat16 natively; emulation would be slower than fp32.

    Args:
        device: any.
        flags: of the processor; those of this machine by default.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return not set(BF16_FLAGS).isdisjoint(cpu_flags() if flags is None else flags)
    return False


def saturates(flags: Collection[str] | None = None) -> bool:
    """Return whether this processor may add products of 8-bit numbers in 16 bits, which overflow in full range.

    Args:
        flags: of the processor; those of this machine by default.
    """
    return set(INT8_FLAGS).isdisjoint(cpu_flags() if flags is None else flags)


@contextmanager
def fixed_threads(threads: int | None) -> Iterator[int]:
    """Set the number of torch's threads while the context lasts, and yield it; `None` leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def environment() -> dict[str, Any]:
    """Describe the hardware and the versions of the libraries, for the record."""
    flags = cpu_flags()
    described: dict[str, Any] = {
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in LIBRARIES}},
        "platform": platform.platform(),
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count(), "flags": [name for name in CPU_FLAGS if name in flags]},
        "threads": torch.get_num_threads(),
        "processes": process_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": None,
    }
    if torch.cuda.is_available():
        described["gpu"] = {"name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return described


def version_of(name: str) -> str | None:
    """Return the version of an installed distribution, or `None` if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _linux_cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")


def _apple_sysctl() -> str:
    done = subprocess.run(["/usr/sbin/sysctl", "hw.optional"], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout


def _py_cpuinfo() -> Mapping[str, Any]:
    import cpuinfo  # not installed on Linux; it starts a process, which takes about a second

    found: Mapping[str, Any] = cpuinfo.get_cpu_info()
    return found


def detect_cpu_flags(
    system: str,
    machine: str,
    *,
    linux: Callable[[], str] = _linux_cpuinfo,
    apple: Callable[[], str] = _apple_sysctl,
    library: Callable[[], Mapping[str, Any]] = _py_cpuinfo,
) -> frozenset[str]:
    """Return the instructions of a processor, by their names on Linux.

    Outside Linux, py-cpuinfo knows neither AVX-VNNI nor AMX. A processor that has nothing else counts as one without
    8-bit dot products, which costs speed but never a wrong result.

    Args:
        system: as `platform.system` returns it.
        machine: as `platform.machine` returns it.
        linux: reads /proc/cpuinfo.
        apple: prints `sysctl hw.optional`, lines such as `hw.optional.arm.FEAT_DotProd: 1`, of Apple silicon.
        library: asks py-cpuinfo, on all other machines.

    Returns:
        The names; empty if they cannot be found out.
    """
    try:
        if system == "Linux":
            text = linux()
            return frozenset((_cpuinfo_field(text, "flags") or _cpuinfo_field(text, "Features")).split())
        if system == "Darwin" and machine == "arm64":
            lines = (line.rpartition(".")[2].partition(":") for line in apple().splitlines())
            return frozenset(
                _ARM_FLAGS[name] for name, _, value in lines if name in _ARM_FLAGS and value.strip() == "1"
            )
        return frozenset(_LINUX_NAMES.get(name, name) for name in library().get("flags", ()))
    except Exception as error:  # py-cpuinfo raises Exception itself on a processor that it does not know
        logger.warning("cannot find out the instructions of this processor, so none is used: %s", error)
        return frozenset()


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return the instructions that this processor has, by their names on Linux; empty if they are not known."""
    return detect_cpu_flags(platform.system(), platform.machine())


def _cpuinfo_field(text: str, key: str) -> str:
    """Return the value of the first line of /proc/cpuinfo that begins with `key`; "" if there is none."""
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(key)), "")


def _cpu_model() -> str:
    named = ""
    with suppress(OSError):
        named = _cpuinfo_field(_linux_cpuinfo(), "model name")
    return named or platform.processor() or platform.machine()
