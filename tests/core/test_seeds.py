"""Seeds are the same on every machine and differ with every part."""

from __future__ import annotations

from plankwise.core.seeds import mix_seed


def test_a_seed_of_these_parts_never_changes() -> None:
    # Resumed runs and caches depend on it: the first 8 bytes of sha256 of "7/dropout", without the lowest bit.
    assert mix_seed(7, "dropout") == 3422261212948167458
    assert mix_seed(7, "dropout") == mix_seed("7", "dropout")


def test_parts_and_their_order_count() -> None:
    seeds = [mix_seed(), mix_seed(1), mix_seed(1, 2), mix_seed(2, 1), mix_seed(12), mix_seed(1, "2", 3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
