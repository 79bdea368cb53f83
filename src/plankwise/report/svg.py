"""Pictures of a page as inline SVG: nothing is loaded, text stays text, and colors follow the page's, light or dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

WIDTH = 640
ROW, LEFT, RIGHT, TOP, BOTTOM = 30, 210, 160, 10, 30
SQUARE = 260
KINDS = 5  # of curves, as `page.html.j2` draws them
Point = tuple[float, float]


def interval_picture(
    rows: Sequence[tuple[str, float, float, float]], *, reference: float, title: str, digits: int = 3
) -> Markup:
    """Draw values with their intervals, one below the other, on one scale with a reference line.

    Args:
        rows: name, value, low and high.
        reference: where the line is, such as 1 for what is retained.
        title: for those who do not see the picture.
        digits: of the numbers beside.
    """
    ends = [reference, *(each for _, _, low, high in rows for each in (low, high))]
    scale = _scale(min(ends), max(ends), LEFT, WIDTH - RIGHT)
    height = TOP + ROW * len(rows) + BOTTOM
    parts = [_line((scale(reference), TOP), (scale(reference), height - BOTTOM), "reference")]
    for number, (name, value, low, high) in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        shown = f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        parts += [
            _text(LEFT - 10, y, name, anchor="end"),
            _line((scale(low), y), (scale(high), y), "interval"),
            Markup('<circle cx="{}" cy="{}" r="5" class="mark"/>').format(_n(scale(value)), _n(y)),
            _text(WIDTH - RIGHT + 8, y, shown, kind="small"),
        ]
    parts += [
        _text(scale(each), height - 8, f"{each:.{digits}g}", anchor="middle", kind="small")
        for each in (min(ends), reference, max(ends))
        if each == reference or abs(scale(each) - scale(reference)) > 40
    ]
    return _picture(WIDTH, height, title, parts)


def bar_picture(rows: Sequence[tuple[str, float, str]], *, title: str) -> Markup:
    """Draw bars from 0, each with its name before and its number after it.

    Args:
        rows: name, length, and what is written at its end.
        title: for those who do not see the picture.
    """
    scale = _scale(0.0, max(value for _, value, _ in rows) or 1.0, LEFT, WIDTH - RIGHT)
    height = 2 * TOP + ROW * len(rows)
    parts: list[Markup] = []
    for number, (name, value, shown) in enumerate(rows):
        y = TOP + ROW * number
        bar = '<rect x="{}" y="{}" width="{}" height="{}" class="bar"/>'
        parts += [
            _text(LEFT - 10, y + ROW / 2, name, anchor="end"),
            Markup(bar).format(_n(LEFT), _n(y + 5), _n(scale(value) - LEFT), ROW - 10),
            _text(scale(value) + 8, y + ROW / 2, shown, kind="small"),
        ]
    return _picture(WIDTH, height, title, parts)


def scatter_picture(
    points: Sequence[tuple[str, float, float, float, float]], *, title: str, across: str, up: str, reference: float
) -> Markup:
    """Draw named points with vertical intervals, and a horizontal reference line.

    Args:
        points: name, horizontal place, vertical place, and low and high of the interval.
        title: for those who do not see the picture.
        across: name of the horizontal axis.
        up: name of the vertical axis.
        reference: height of the line, such as 1 for what is retained.
    """
    left, height = 70, 380
    across_ends = min(1.0, *(each[1] for each in points)), max(1.0, *(each[1] for each in points))
    up_ends = min(reference, *(each[3] for each in points)), max(reference, *(each[4] for each in points))
    x, y = _scale(*across_ends, left + 20, WIDTH - RIGHT), _scale(*up_ends, height - 60, 20)
    parts = [
        _line((left, y(reference)), (WIDTH - 10, y(reference)), "reference"),
        _text((left + WIDTH) / 2, height - 12, across, anchor="middle", kind="small"),
        Markup('<text transform="translate(14 {}) rotate(-90)" text-anchor="middle" class="small">{}</text>').format(
            _n((height - 40) / 2), up
        ),
    ]
    parts += [_text(x(each), height - 36, f"{each:.2f}×", anchor="middle", kind="small") for each in across_ends]
    parts += [
        _text(left - 8, y(each), f"{each:.3g}", anchor="end", kind="small")
        for each in dict.fromkeys((*up_ends, reference))
    ]
    for name, place, value, low, high in points:
        parts += [
            _line((x(place), y(low)), (x(place), y(high)), "interval"),
            Markup('<circle cx="{}" cy="{}" r="5" class="mark"/>').format(_n(x(place)), _n(y(value))),
            _text(x(place) + 9, y(value) - 9, name, kind="small"),
        ]
    return _picture(WIDTH, height, title, parts)


def standalone(picture: Markup) -> str:
    """Return a picture as a file of its own, with the colors of a light page."""
    style = (
        "text{font:13px sans-serif;fill:#222}.small{font-size:12px;fill:#595959}.reference{stroke:#595959;"
        "stroke-dasharray:4 4}.interval{stroke:#2a6f97;stroke-width:2}.mark,.bar{fill:#2a6f97}"
    )
    head, rest = str(picture).split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{rest}\n'


def curve_picture(
    curves: Mapping[str, Sequence[Point]],
    *,
    title: str,
    across: str,
    up: str,
    ends: tuple[Point, Point] = ((0.0, 1.0), (0.0, 1.0)),
    diagonal: bool = False,
) -> Markup:
    """Draw curves in a square frame, with a legend below.

    Args:
        curves: points by name; at most three are told apart by color alone, the others by dashes too.
        title: for those who do not see the picture.
        across: name of the horizontal axis.
        up: name of the vertical axis.
        ends: of the horizontal and of the vertical axis.
        diagonal: whether to draw the line where both are equal.
    """
    left, bottom = 64, 60 + 18 * len(curves)
    x, y = _scale(*ends[0], left, left + SQUARE), _scale(*ends[1], TOP + SQUARE, TOP)
    parts = [
        Markup('<rect x="{}" y="{}" width="{}" height="{}" class="frame"/>').format(left, TOP, SQUARE, SQUARE),
        _text(left + SQUARE / 2, TOP + SQUARE + 34, across, anchor="middle", kind="small"),
        Markup('<text transform="translate(14 {}) rotate(-90)" text-anchor="middle" class="small">{}</text>').format(
            _n(TOP + SQUARE / 2), up
        ),
    ]
    if diagonal:
        parts.append(_line((x(ends[0][0]), y(ends[1][0])), (x(ends[0][1]), y(ends[1][1])), "reference"))
    for share in (0.0, 0.5, 1.0):
        one, other = (low + share * (high - low) for low, high in ends)
        parts += [
            _text(x(one), TOP + SQUARE + 16, f"{one:.4g}", anchor="middle", kind="small"),
            _text(left - 8, y(other), f"{other:.3g}", anchor="end", kind="small"),
        ]
    for number, (name, points) in enumerate(curves.items()):
        joined = " ".join(f"{_n(x(one))},{_n(y(other))}" for one, other in points)
        height, kind = TOP + SQUARE + 54 + 18 * number, f"curve curve{number % KINDS}"
        parts += [
            Markup('<polyline points="{}" class="{}"/>').format(joined, kind),
            _line((left, height), (left + 26, height), kind),
            _text(left + 34, height, name, kind="small"),
        ]
    return _picture(left + SQUARE + 20, TOP + SQUARE + bottom, title, parts)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    room = (high - low) or 1.0

    def place(value: float) -> float:
        return start + (value - low) / room * (end - start)

    return place


def _picture(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    opening = '<svg viewBox="0 0 {0} {1}" width="{0}" role="img" aria-label="{2}"><title>{2}</title>{3}</svg>'
    return Markup(opening).format(_n(width), _n(height), title, Markup("").join(parts))


def _line(start: Point, end: Point, kind: str) -> Markup:
    form = '<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>'
    return Markup(form).format(*(_n(each) for point in (start, end) for each in point), kind)


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "name") -> Markup:
    form = '<text x="{}" y="{}" text-anchor="{}" dominant-baseline="middle" class="{}">{}</text>'
    return Markup(form).format(_n(x), _n(y), anchor, kind, escape(text))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
