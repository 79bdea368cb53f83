"""Finding repeats by hashes on disk equals a plain set in memory."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from plankwise.data.corpus.duplicates import LineHashes, hash_line


def slowly(lines: list[str]) -> list[bool]:
    seen: set[str] = set()
    found = []
    for line in lines:
        found.append(line in seen)
        seen.add(line)
    return found


def found(lines: list[str], path: Path, *sizes: int) -> list[bool]:
    with LineHashes(path, *sizes) as hashes:
        for start in range(0, len(lines), 7):
            hashes.add(lines[start : start + 7])
        assert hashes.count == len(lines)
        return list(hashes.repeated())


@pytest.mark.parametrize("sizes", [(), (40, 9), (100, 100), (99, 1000), (1000, 64)])
@pytest.mark.parametrize("variety", [1, 30, 10_000])
def test_it_equals_a_set(sizes: tuple[int, ...], variety: int, tmp_path: Path) -> None:
    draw = random.Random(variety)
    lines = [f"Zeile {draw.randrange(variety)} ä" for _ in range(400)]
    assert found(lines, tmp_path / "hashes", *sizes) == slowly(lines)


def test_nothing_has_no_repeats_and_odd_text_is_text(tmp_path: Path) -> None:
    assert found([], tmp_path / "hashes") == []
    assert found(["", "\ud800", "\0", "", "\ud800"], tmp_path / "hashes") == [False, False, False, True, True]


def test_the_file_of_hashes_goes_whatever_happens(tmp_path: Path) -> None:
    found(["a", "b"], tmp_path / "hashes")
    with pytest.raises(AttributeError), LineHashes(tmp_path / "hashes") as hashes:
        hashes.add(["a", None])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


def test_a_hash_is_the_same_everywhere_and_uses_all_bits() -> None:
    assert hash_line("Grüße") == 0x92A39084B758AB06
    bits = np.bitwise_or.reduce(np.array([hash_line(str(number)) for number in range(200)], dtype=np.uint64))
    assert bits == np.uint64(2**64 - 1)
