"""The time that a search has spent, over all the processes that worked on it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from plankwise.core.errors import RecipeError
from plankwise.core.files import read_text, write_text

FILE = "spent_seconds"
EVERY_S = 5.0  # a killed process forgets at most that much
_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """Return the seconds of a time such as `90s`, `10m`, `1.5h` or `1h30m`.

    Raises:
        RecipeError: if it is not such a time, or not above 0.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        raise RecipeError(f"--time {text}: not a time; allowed: such as 90s, 10m, 1.5h or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise RecipeError(f"--time {text}: allowed: above 0")
    return seconds


class Clock:
    """Counts seconds while it runs, and keeps them in a file.

    Args:
        folder: of the search.
        now: returns seconds.
    """

    def __init__(self, folder: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._path, self._now = folder / FILE, now
        self._before = float(read_text(self._path)) if self._path.exists() else 0.0
        self._begun: float | None = None

    @property
    def spent(self) -> float:
        """Seconds so far, in all processes."""
        return self._before + (0.0 if self._begun is None else self._now() - self._begun)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while the context lasts; another thread writes the file, so that a killed process is counted too."""
        self._begun, stop = self._now(), threading.Event()

        def keep() -> None:
            while not stop.wait(EVERY_S):
                self._write()

        thread = threading.Thread(target=keep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self._write()

    def _write(self) -> None:
        write_text(self._path, f"{self.spent:.1f}\n")
