"""Intervals as text: one format for tables, pages, logs and benchmarks."""

from __future__ import annotations

MISSING = "–"  # an en dash: the value does not exist, as opposed to zero


def format_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    digits: int = 3,
    signed: bool = False,
    unit: str = "",
) -> str:
    """Format a value with the ends of its interval.

    Args:
        value: the estimate; `None` becomes a dash.
        low: lower end; without both ends the value stands alone.
        high: upper end.
        digits: decimal places of all three numbers.
        signed: whether positive numbers carry a plus, as differences do.
        unit: written directly after the value, such as `×`; not repeated at the ends.

    Example:
        >>> format_interval(0.5, 0.25, 0.75)
        '0.500 [0.250, 0.750]'
        >>> format_interval(0.012, -0.001, 0.02, digits=2, signed=True)
        '+0.01 [-0.00, +0.02]'
        >>> format_interval(1.94, 1.8, 2.05, digits=2, unit="×")
        '1.94× [1.80, 2.05]'
    """
    if value is None:
        return MISSING
    sign = "+" if signed else ""
    text = f"{value:{sign}.{digits}f}{unit}"
    if low is None or high is None:
        return text
    return f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
