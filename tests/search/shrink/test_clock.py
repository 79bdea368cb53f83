"""Time that is spent counts over all processes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from plankwise.search.shrink.clock import Clock


def test_spent_seconds_add_up_over_processes(tmp_path: Path) -> None:
    seconds = [100.0]
    first = Clock(tmp_path, now=lambda: seconds[0])
    with first.running():
        seconds[0] += 30.0
        assert first.spent == 30.0
    second = Clock(tmp_path, now=lambda: seconds[0])
    assert second.spent == 30.0
    with suppress(KeyboardInterrupt), second.running():
        seconds[0] += 12.0
        raise KeyboardInterrupt
    assert Clock(tmp_path).spent == 42.0
