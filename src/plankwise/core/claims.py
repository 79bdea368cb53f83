"""Exclusive claims: only one process at a time writes to a place.

A claim is a lock file that the operating system frees when its holder dies, so a killed process blocks nobody.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from plankwise.core.errors import OutputError


class ExclusiveClaim:
    """The right to write to a place, which ends with this object at the latest.

    As a context manager it takes the claim at once, or refuses.

    Args:
        lock: path of the lock file; its folder is made if it is missing.
        place: what is claimed, for the message.
        removes_lock: whether the lock file goes when the claim is released. Processes that wait for a removed file
            notice, and make a new one.
    """

    def __init__(self, lock: Path, place: Path, removes_lock: bool = True) -> None:
        self._path, self._place, self._removes_lock = lock, place, removes_lock
        self._lock = FileLock(lock)

    def take(self) -> None:
        """Take the claim at once.

        Raises:
            OutputError: if another process holds it.
            OSError: if the lock file cannot be made.
        """
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise OutputError(f"another process is writing to {self._place}") from None

    def wait(self) -> None:
        """Take the claim as soon as no other process holds it, however long that is.

        Raises:
            OSError: if the lock file cannot be made.
        """
        self._lock.acquire()

    def release(self) -> None:
        """Release the claim; without a claim nothing happens."""
        if not self._lock.is_locked:
            return
        if self._removes_lock:
            with suppress(PermissionError):  # Windows removes no open file
                self._path.unlink(missing_ok=True)  # before the release: afterwards it may be another process's
        self._lock.release()

    def __enter__(self) -> ExclusiveClaim:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_claimed(lock: Path) -> bool:
    """Return whether a process holds the claim of this lock file, or whether that cannot be found out."""
    if not lock.exists():
        return False
    try:
        with ExclusiveClaim(lock, lock, removes_lock=False):
            return False
    except (OutputError, OSError):
        return True
