"""Seeds: one number made of many parts, the same on every machine."""

from __future__ import annotations

import hashlib


def mix_seed(*parts: int | str) -> int:
    """Fold any parts into one seed of 63 bits; equal parts give the equal seed on every machine."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
