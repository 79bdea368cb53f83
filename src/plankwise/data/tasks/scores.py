"""The scores of a table: cells that hold a number to come near to."""

from __future__ import annotations

import math
import re
from typing import Any

from plankwise.data.tasks.labels import is_missing

ALLOWED = "allowed: a number such as 3.5"
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")


def read_score(cell: Any) -> float:
    """Return the number in a cell.

    Raises:
        ValueError: saying why there is none; only numbers are quoted.
    """
    if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
        raise ValueError(f"is empty; {ALLOWED}")
    if isinstance(cell, bool) or not isinstance(cell, (int, float, str)):
        raise ValueError(f"holds no number; {ALLOWED}")
    text = str(cell).strip()
    if _DECIMAL_COMMA.fullmatch(text):
        raise ValueError(f"holds '{text[:20]}', with a comma; {ALLOWED}")
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(f"holds text that is not a number; {ALLOWED}" if isinstance(cell, str) else f"holds {text}")
    return float(text)
