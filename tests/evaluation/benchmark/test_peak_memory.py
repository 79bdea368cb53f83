"""The peak memory of a model: measured in a process of its own, or missing with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from plankwise.core.errors import ModelError
from plankwise.data.truncation import Truncation
from plankwise.evaluation.benchmark.peak_memory import STATUS, MemoryRequest, PeakMemory, measure_here, peak_memory

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason=f"this system has no {STATUS}")


def request(folder: str) -> MemoryRequest:
    texts = [str(row["text"]) for row in tiny.rows(11)]
    return MemoryRequest(folder, Truncation(max_length=16), list(texts), 64, 1)


def test_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    found = peak_memory(request(str(tiny.save_source(tmp_path / "source", layers=1))))
    if found.size_bytes is None:  # sandboxes may forbid the reset
        assert found.missing.startswith("the peak of the process cannot be reset: /proc/self/clear_refs: ")
    else:
        assert 1 << 16 < found.size_bytes < 1 << 30  # the weights alone are 65 kB


def test_a_process_that_fails_is_a_fault() -> None:
    with pytest.raises(ModelError, match="the memory of model could not be measured: exit code 1"):
        peak_memory(request("model"), python="false")


def test_a_peak_that_cannot_be_reset_is_no_figure_but_a_reason(tmp_path: Path) -> None:
    """The peak of importing torch would stay in it and hide a small model."""
    refused = tmp_path / "none" / "clear_refs"
    expected = f"the peak of the process cannot be reset: {refused}: No such file or directory"
    assert measure_here(request("not opened"), refused) == PeakMemory(None, expected)
