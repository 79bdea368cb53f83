from __future__ import annotations

import pytest

from plankwise.core.intervals import format_interval
from plankwise.core.records import Interval, format_optional


@pytest.mark.parametrize(
    ("numbers", "options", "expected"),
    [
        ((0.5, 0.25, 0.75), {}, "0.500 [0.250, 0.750]"),
        ((0.5, 0.25, 0.75), {"digits": 1}, "0.5 [0.2, 0.8]"),
        ((0.012, -0.001, 0.02), {"digits": 4, "signed": True}, "+0.0120 [-0.0010, +0.0200]"),
        ((1.94, 1.8, 2.05), {"digits": 2, "unit": "×"}, "1.94× [1.80, 2.05]"),
        ((0.012, None, None), {"signed": True}, "+0.012"),
        ((1.94, None, 2.05), {"unit": "×"}, "1.940×"),
        ((None, None, None), {}, "–"),
    ],
)
def test_format_interval(numbers: tuple[float | None, ...], options: dict[str, object], expected: str) -> None:
    assert format_interval(*numbers, **options) == expected  # type: ignore[arg-type]


def test_an_interval_of_a_record() -> None:
    interval = Interval(value=0.5, low=0.25, high=0.75)
    assert str(interval) == format_optional(interval) == "0.500 [0.250, 0.750]"
    assert format_optional(None) == "–"
