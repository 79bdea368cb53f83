"""Instructions of processors, from what each operating system answers; devices, threads and the record of both."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import torch

from plankwise.core.hardware import (
    CPU_FLAGS,
    LIBRARIES,
    bf16_is_fast,
    cpu_flags,
    default_device,
    detect_cpu_flags,
    environment,
    fixed_threads,
    saturates,
    version_of,
)

CPU = torch.device("cpu")
LINUX_X86 = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx2 avx512f avx512_vnni amx_bf16\n\nprocessor\t: 1\n"
LINUX_ARM = "processor\t: 0\nBogoMIPS\t: 243\nFeatures\t: fp asimd asimddp bf16\n"
APPLE_M1 = (
    "hw.optional.AdvSIMD: 1\nhw.optional.arm64: 1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_BF16: 0\n"
    "hw.optional.arm.FEAT_I8MM: 0\nhw.optional.floatingpoint: 1\n"
)
APPLE_M2 = APPLE_M1.replace("FEAT_BF16: 0", "FEAT_BF16: 1").replace("FEAT_I8MM: 0", "FEAT_I8MM: 1")


def unexpected() -> Any:
    raise AssertionError("this system is not asked this way")


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (LINUX_X86, {"fpu", "avx2", "avx512f", "avx512_vnni", "amx_bf16"}),
        (LINUX_ARM, {"fp", "asimd", "asimddp", "bf16"}),
        ("processor\t: 0\n", set()),
    ],
)
def test_linux_is_read_from_its_file(text: str, flags: set[str]) -> None:
    assert detect_cpu_flags("Linux", "any", linux=lambda: text, apple=unexpected, library=unexpected) == flags


@pytest.mark.parametrize(
    ("text", "flags", "fast"),
    [
        (APPLE_M1, {"asimd", "asimddp"}, False),
        (APPLE_M2, {"asimd", "asimddp", "i8mm", "bf16"}, True),
        ("", set(), False),
    ],
)
def test_apple_silicon_is_asked_for_what_it_reports(text: str, flags: set[str], fast: bool) -> None:
    found = detect_cpu_flags("Darwin", "arm64", linux=unexpected, apple=lambda: text, library=unexpected)
    assert found == flags
    assert bf16_is_fast(CPU, found) is fast
    assert saturates(found) is not bool(text)


@pytest.mark.parametrize(("system", "machine"), [("Windows", "AMD64"), ("Darwin", "x86_64")])
def test_other_systems_are_asked_by_the_library_and_get_the_names_of_linux(system: str, machine: str) -> None:
    answer = {"arch": "X86_64", "flags": ["avx2", "avx512f", "avx512vnni", "sse4_2"]}
    found = detect_cpu_flags(system, machine, linux=unexpected, apple=unexpected, library=lambda: answer)
    assert found == {"avx2", "avx512f", "avx512_vnni", "sse4_2"}
    assert not saturates(found)
    assert not detect_cpu_flags(system, machine, library=lambda: {"arch": "ARM_8"})


def test_no_answer_means_no_instructions_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(error: Exception) -> Any:
        raise error

    answers: dict[str, list[Exception]] = {
        "Linux": [PermissionError("no /proc")],
        "Darwin": [subprocess.TimeoutExpired("sysctl", 10)],
        "Windows": [Exception("py-cpuinfo currently only works on X86 and some ARM"), ModuleNotFoundError("cpuinfo")],
    }
    for system, errors in answers.items():
        for error in errors:
            asked = dict.fromkeys(("linux", "apple", "library"), lambda error=error: fail(error))
            caplog.clear()
            assert detect_cpu_flags(system, "arm64", **asked) == frozenset()
            assert caplog.messages == [f"cannot find out the instructions of this processor, so none is used: {error}"]


@pytest.mark.parametrize(
    ("flags", "fast", "may_saturate"),
    [
        ({"avx2"}, False, True),
        ({"avx2", "avx_vnni"}, False, False),
        ({"avx512f", "avx512_vnni", "avx512_bf16"}, True, False),
        ({"amx_bf16", "amx_int8"}, True, False),
        (set(), False, True),
    ],
)
def test_what_instructions_mean(flags: set[str], fast: bool, may_saturate: bool) -> None:
    assert bf16_is_fast(CPU, flags) is fast
    assert saturates(flags) is may_saturate
    assert not bf16_is_fast(torch.device("meta"), flags)


def test_this_machine_is_described() -> None:
    described = environment()
    assert set(described["versions"]) == {"python", *LIBRARIES}
    assert described["cpu"]["flags"] == [name for name in CPU_FLAGS if name in cpu_flags()]
    assert described["threads"] == torch.get_num_threads()
    assert described["processes"] == 1
    assert (described["gpu"] is None) is not torch.cuda.is_available()
    assert version_of("no-such-distribution") is None
    if not torch.accelerator.is_available():
        assert default_device() == CPU


@pytest.mark.parametrize(("wanted", "used"), [(3, 3), (None, None)])
def test_threads_are_as_before_afterwards_even_after_an_error(wanted: int | None, used: int | None) -> None:
    before = torch.get_num_threads()

    def work() -> None:
        with fixed_threads(wanted) as threads:
            assert threads == torch.get_num_threads() == (used or before)
            raise ValueError

    with pytest.raises(ValueError):
        work()
    assert torch.get_num_threads() == before
