"""Finding repeated lines of a stream, in memory that does not grow with the stream.

Each line is hashed to 64 bits, and the hashes go to a file. The file is then searched in parts, by the highest bits of
the hashes, so that equal lines are in the same part. With a billion different lines, the probability that any two share
a hash is about 3 %.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

LINES_PER_PART = 4_000_000  # about: lines whose hashes are sorted in memory at once
LINES_PER_READ = 1_000_000


def hash_line(line: str) -> int:
    """Hash a line to 64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class LineHashes:
    """The hashes of all lines so far, in a file that is removed in the end."""

    def __init__(self, path: Path, lines_per_part: int = LINES_PER_PART, lines_per_read: int = LINES_PER_READ) -> None:
        self._path, self._file, self.count = path, path.open("wb"), 0
        self._lines_per_part, self._lines_per_read = lines_per_part, lines_per_read

    def __enter__(self) -> LineHashes:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, lines: Iterable[str]) -> None:
        """Append the hashes of more lines."""
        hashes = np.fromiter((hash_line(line) for line in lines), dtype=np.uint64)
        self._file.write(hashes.tobytes())
        self.count += len(hashes)

    def repeated(self) -> np.ndarray:
        """Return for each line so far whether it is equal to an earlier one, [lines]."""
        self._file.flush()
        found = np.zeros(self.count, dtype=bool)
        if not self.count:
            return found
        hashes = np.memmap(self._path, dtype=np.uint64, mode="r")
        bits = max(0, (self.count // self._lines_per_part).bit_length())
        for part in range(2**bits):
            positions, values = _members(hashes, part, bits, self._lines_per_read)
            _, first = np.unique(values, return_index=True)
            repeats = np.ones(len(values), dtype=bool)
            repeats[first] = False
            found[positions[repeats]] = True
        return found


def _members(hashes: np.ndarray, part: int, bits: int, lines_per_read: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and values of the hashes with the highest bits `part`."""
    positions, values = [], []
    for start in range(0, len(hashes), lines_per_read):
        chunk = np.asarray(hashes[start : start + lines_per_read])
        here = np.flatnonzero(chunk >> np.uint64(64 - bits) == part) if bits else np.arange(len(chunk))
        positions.append(here + start)
        values.append(chunk[here])
    return np.concatenate(positions), np.concatenate(values)
