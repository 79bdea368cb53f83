"""Which lines of a stream are repeats, in memory that does not grow with the stream.

Each line is hashed to 64 bits; hashes go to a file. They are then looked through in parts, by their highest bits, so
that equal lines meet in the same part. Two different lines of a billion share a hash with a probability of about 3 %.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

LINES_PER_PART = 4_000_000
LINES_PER_READ = 1_000_000


def hash_line(line: str) -> int:
    """Hash a line to 64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class LineHashes:
    """The hashes of all lines so far, in a file that is removed in the end."""

    def __init__(self, path: Path) -> None:
        self._path, self._file, self.count = path, path.open("wb"), 0

    def __enter__(self) -> LineHashes:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, lines: Iterable[str]) -> None:
        """Take in more lines."""
        hashes = np.fromiter((hash_line(line) for line in lines), dtype=np.uint64)
        self._file.write(hashes.tobytes())
        self.count += len(hashes)

    def repeated(self) -> np.ndarray:
        """Tell for each line so far whether an equal one stands before it, [lines]."""
        self._file.flush()
        found = np.zeros(self.count, dtype=bool)
        if not self.count:
            return found
        hashes = np.memmap(self._path, dtype=np.uint64, mode="r")
        bits = max(0, (self.count // LINES_PER_PART).bit_length())
        for part in range(2**bits):
            positions, values = _members(hashes, part, bits)
            _, first = np.unique(values, return_index=True)
            repeats = np.ones(len(values), dtype=bool)
            repeats[first] = False
            found[positions[repeats]] = True
        return found


def _members(hashes: np.ndarray, part: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Collect positions and values of the hashes whose highest bits say `part`."""
    positions, values = [], []
    for start in range(0, len(hashes), LINES_PER_READ):
        chunk = np.asarray(hashes[start : start + LINES_PER_READ])
        here = np.flatnonzero(chunk >> np.uint64(64 - bits) == part) if bits else np.arange(len(chunk))
        positions.append(here + start)
        values.append(chunk[here])
    return np.concatenate(positions), np.concatenate(values)
