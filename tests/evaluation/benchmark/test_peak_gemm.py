"""The peak GEMM of a machine, and the operations of a model that are compared with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import tiny
from fake_runtime import Clock
from plankwise.deploy.manifest import Geometry, geometry_of
from plankwise.evaluation.benchmark.peak_gemm import SECONDS, arithmetic_of, operations, peak_gemm

EVERYTHING = {"fp32": True, "bf16": True, "int8": True}


def test_operations_are_counted_with_padding() -> None:
    geometry = Geometry(linear_flops=100, attention_flops=10)
    assert operations(geometry, [(2, 3), (1, 5)]) == 6 * (100 + 30) + 5 * (100 + 50)


def test_operations_of_bert_base_are_those_of_the_literature() -> None:
    geometry = geometry_of(tiny.model(hidden_size=768, num_attention_heads=12, intermediate_size=3072, layers=1))
    assert 12 * geometry.linear_flops == 169_869_312
    assert 12 * geometry.attention_flops == 36_864


def test_precisions_are_compared_with_the_arithmetic_that_they_allow() -> None:
    names = ("fp32", "fp16", "bf16", "int8", "int8-weights", "int4-weights")
    assert [arithmetic_of(name) for name in names] == ["fp32", "fp32", "bf16", "int8", "int8", "int8"]


def test_torch_multiplies_in_every_precision() -> None:
    found = peak_gemm(1, sides=(64,), native=EVERYTHING)
    assert all(value is not None and 0.01 < value < 1e5 for value in found.values())
    assert list(found) == ["fp32", "bf16", "int8"]


class Products:
    """Makes products that take as long as on a machine of so many 10⁹ operations per second."""

    def __init__(self, clock: Clock, gops: float) -> None:
        self.clock, self.gops, self.asked = clock, gops, list[str]()

    def __call__(self, precision: str, side: int) -> Callable[[], Tensor]:
        self.asked.append(precision)

        def run() -> Tensor:
            self.clock.now += 2 * side**3 / (self.gops * 1e9)
            return torch.empty(0)

        return run


def test_what_the_processor_only_emulates_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    products = Products(Clock(monkeypatch), 145.0)
    found = peak_gemm(1, native={"fp32": True, "bf16": False, "int8": False}, product=products)
    assert found == {"fp32": pytest.approx(145.0), "bf16": None, "int8": None}
    assert set(products.asked) == {"fp32"}
    assert "no peak GEMM for bf16 and int8: this processor does not multiply it fast" in caplog.text


def test_what_torch_cannot_multiply_has_no_peak() -> None:
    def refused(precision: str, side: int) -> Callable[[], Tensor]:
        def run() -> Tensor:
            raise NotImplementedError(f"{precision} at {side}")

        return run

    assert peak_gemm(1, native={"int8": True}, product=refused) == {"int8": None}


@pytest.mark.parametrize(("gops", "expected"), [(100.0, 100.0), (10.0, 10.0), (1.0, None), (0.01, None)])
def test_no_precision_takes_longer_than_its_bound(
    monkeypatch: pytest.MonkeyPatch, gops: float, expected: float | None
) -> None:
    clock = Clock(monkeypatch)
    found = peak_gemm(1, native=EVERYTHING, product=Products(clock, gops))
    assert found["fp32"] == (None if expected is None else pytest.approx(expected))
    assert clock.now <= len(found) * SECONDS
