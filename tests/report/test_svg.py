"""Pictures as SVG: where things are drawn, and that names cannot become markup."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from plankwise.report.svg import (
    LEFT,
    RIGHT,
    WIDTH,
    bar_picture,
    curve_picture,
    interval_picture,
    scatter_picture,
    standalone,
)

SVG = "{http://www.w3.org/2000/svg}"


def parsed(picture: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(picture).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def lines(root: ElementTree.Element, kind: str) -> list[tuple[float, float]]:
    found = [each for each in root.iter(f"{SVG}line") if each.get("class") == kind]
    return [(float(each.get("x1", "")), float(each.get("x2", ""))) for each in found]


def test_intervals_lie_on_one_scale() -> None:
    rows = [("one", 1.0, 0.9, 1.1), ("other", 0.95, 0.9, 1.0)]
    root = parsed(interval_picture(rows, reference=1.0, title="kept"))
    assert root.get("aria-label") == "kept"
    assert lines(root, "interval") == [(LEFT, WIDTH - RIGHT), (LEFT, pytest.approx((LEFT + WIDTH - RIGHT) / 2))]
    assert lines(root, "reference")[0][0] == pytest.approx((LEFT + WIDTH - RIGHT) / 2)
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert "0.950 [0.900, 1.000]" in texts


def test_bars_begin_at_zero() -> None:
    root = parsed(bar_picture([("slow", 10.0, "10 ms"), ("fast", 2.5, "2.5 ms")], title="times"))
    widths = [float(each.get("width", "")) for each in root.iter(f"{SVG}rect")]
    assert widths[1] / widths[0] == pytest.approx(0.25, abs=0.002)
    assert parsed(bar_picture([("none", 0.0, "0")], title="t")) is not None


def test_points_are_placed_by_both_numbers() -> None:
    points = [("slow", 1.0, 1.0, 0.98, 1.02), ("fast", 3.0, 0.9, 0.9, 0.9)]
    picture = scatter_picture(points, title="t", across="x", up="y", reference=1.0)
    marks = [(float(each.get("cx", "")), float(each.get("cy", ""))) for each in parsed(picture).iter(f"{SVG}circle")]
    assert marks[0][0] < marks[1][0]
    assert marks[0][1] < marks[1][1]  # higher on the page
    root = ElementTree.fromstring(standalone(picture))
    assert root.tag == f"{SVG}svg"
    assert [each.text for each in root.iter(f"{SVG}title")] == ["t"]


def test_curves_run_from_corner_to_corner() -> None:
    points = {"a": [(0.0, 0.0), (1.0, 1.0)], "b": [(0.5, 0.5)]}
    root = parsed(curve_picture(points, title="c", across="x", up="y", diagonal=True))
    diagonal = next(each for each in root.iter(f"{SVG}line") if each.get("class") == "reference")
    ends = [f"{diagonal.get('x1')},{diagonal.get('y1')}", f"{diagonal.get('x2')},{diagonal.get('y2')}"]
    curves = list(root.iter(f"{SVG}polyline"))
    assert curves[0].get("points") == " ".join(ends)
    assert [each.get("class") for each in curves] == ["curve curve0", "curve curve1"]


def test_curves_fill_the_ends_that_are_given() -> None:
    points = {"a": [(0.0, 2.0), (400.0, 4.0)]}
    root = parsed(curve_picture(points, title="c", across="x", up="y", ends=((0.0, 400.0), (2.0, 4.0))))
    (frame,) = root.iter(f"{SVG}rect")
    left, top, side = (float(frame.get(key, "")) for key in ("x", "y", "width"))
    (curve,) = root.iter(f"{SVG}polyline")
    assert curve.get("points") == f"{left:g},{top + side:g} {left + side:g},{top:g}"
    assert "200" in [each.text for each in root.iter(f"{SVG}text")]
    assert not [each for each in root.iter(f"{SVG}line") if each.get("class") == "reference"]


@pytest.mark.parametrize(
    "picture",
    [
        interval_picture([("<script>", 1.0, 0.9, 1.1)], reference=1.0, title='"><script>'),
        bar_picture([("<script>", 1.0, "<b>")], title="<script>"),
        curve_picture({"<script>": [(0.1, 0.2)]}, title="'<script>", across="<x>", up="<y>"),
    ],
)
def test_names_are_text(picture: str) -> None:
    assert not re.search(r"<(script|b|x|y)>", picture)
    parsed(picture)


def test_equal_ends_are_drawn_too() -> None:
    assert parsed(interval_picture([("same", 1.0, 1.0, 1.0)], reference=1.0, title="t")) is not None
