"""Small charts as SVG: their colours come from the style of the page, so that they are light or dark with it.

Names are escaped here, as the page takes a chart as it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH = 640
NAMES, MOST_NAMES = 110, 240
"""Least and largest width of the column of names."""

CHARACTER = 9.6
"""Width of a character on a phone, where letters are larger in proportion."""

ROW = 22
"""Height of a strip."""

LONGEST_NAME = 24
"""Characters of a name that have room beside a strip; the whole name is in its title."""

LINE_HEIGHT = 260
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 36
"""Margins of a chart with axes."""

SMALLEST_SPAN = 1e-12
"""Span of an axis below which all values count as one."""

SERIES = 7
"""Line styles in the page's style; further lines begin again with the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartPoint:
    """One case in a chart."""

    name: str
    """Name of the case."""

    x: float
    y: float = 0.0
    case: int | None = None
    """Position of the case in the report, which the point opens; None if it is not in it."""


class ChartInterval(NamedTuple):
    """A value with the ends of its confidence interval, which are NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def strip_plot(
    strips: Mapping[str, Sequence[ChartPoint]],
    *,
    title: str,
    unit: str = "",
    low: float | None = 0.0,
    high: float | None = None,
) -> Markup:
    """Draw a row of points for each name, with a tick at its median.

    Args:
        strips: Points of each row, placed by their x; points that are not finite are left out.
        title: What the chart shows, for screen readers.
        unit: Unit of the values.
        low: Left end of the axis; None for the smallest value.
        high: Right end; by default the largest value.
    """
    rows = {name: [p for p in points if math.isfinite(p.x)] for name, points in strips.items()}
    values = [p.x for points in rows.values() for p in points]
    axis, parts, height = _rows(list(rows), values, low, high, unit)
    for index, (name, points) in enumerate(rows.items()):
        middle = TOP + ROW * (index + 0.5)
        parts += [
            _dot(axis.at(p.x), middle + _jitter(k), p, f"{name}: {p.x:.3g}{unit}")
            for k, p in enumerate(points)
        ]
        if points:
            x = f"{axis.at(median(p.x for p in points)):.1f}"
            ends = f'y1="{middle - 9:.1f}" y2="{middle + 9:.1f}"'
            parts.append(f'<line class="median" x1="{x}" x2="{x}" {ends}/>')
    return _svg(parts, height, title)


def interval_plot(
    rows: Mapping[str, ChartInterval], *, title: str, low: float | None = None, high: float | None = None
) -> Markup:
    """Draw a value with its confidence interval in a row for each name, and a line at 0 if that is in view.

    Args:
        rows: Value and interval of each row; a row whose value is not finite stays empty.
        title: What the chart shows, for screen readers.
        low: Left end of the axis; by default the smallest value.
        high: Right end; by default the largest value.
    """
    values = [each for row in rows.values() for each in row if math.isfinite(each)]
    axis, parts, height = _rows(list(rows), values, low, high, "")
    if axis.low <= 0 <= axis.high:
        x = f"{axis.at(0):.1f}"
        parts.append(f'<line class="zero" x1="{x}" x2="{x}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    for index, (name, row) in enumerate(rows.items()):
        if not math.isfinite(row.value):
            continue
        y, text = f"{TOP + ROW * (index + 0.5):.1f}", f"{name}: {row.value:.3g}"
        line = ""
        if math.isfinite(row.low + row.high):
            ends = f'x1="{axis.at(row.low):.1f}" x2="{axis.at(row.high):.1f}"'
            line = f'<line class="interval" {ends} y1="{y}" y2="{y}"/>'
            text += f", 95 % confidence interval {row.low:.3g} to {row.high:.3g}"
        point = f'<circle class="value" cx="{axis.at(row.value):.1f}" cy="{y}" r="5"/>'
        parts.append(f"<g><title>{escape(text)}</title>{line}{point}</g>")
    return _svg(parts, height, title)


def scatter_plot(points: Sequence[ChartPoint], *, title: str, x_title: str, y_title: str) -> Markup:
    """Draw a point for each case; both axes begin at 0."""
    points = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
    x = _Axis(0.0, max((p.x for p in points), default=1.0), LEFT, WIDTH - RIGHT)
    y = _Axis(0.0, max((p.y for p in points), default=1.0), LINE_HEIGHT - BOTTOM, TOP)
    parts = [_frame(x, y, x_title, y_title)]
    parts += [_dot(x.at(p.x), y.at(p.y), p, f"{p.x:.3g}, {p.y:.3g}") for p in points]
    return _svg(parts, LINE_HEIGHT, title)


def reliability_plot(
    bins: Sequence[tuple[float, int, int]], *, title: str, x_title: str, y_title: str
) -> Markup:
    """Draw how often something is true against the probability that was given for it, with 95 % intervals.

    The intervals are those of Wilson (1927) for a share.

    Args:
        bins: Mean probability, number of true ones and number of all, at least one, of each range.
        title: What the chart shows, for screen readers.
        x_title: Title of the horizontal axis.
        y_title: Title of the vertical axis.
    """
    x, y = _Axis(0.0, 1.0, LEFT, WIDTH - RIGHT), _Axis(0.0, 1.0, LINE_HEIGHT - BOTTOM, TOP)
    parts = [_frame(x, y, x_title, y_title)]
    ends = f'x1="{x.at(0):.1f}" y1="{y.at(0):.1f}" x2="{x.at(1):.1f}" y2="{y.at(1):.1f}"'
    parts.append(f'<line class="zero" {ends}/>')
    for probability, true, n in bins:
        low, high = _wilson(true, n)
        at, text = f"{x.at(probability):.1f}", f"{true} of {n} at a mean probability of {probability:.2f}"
        line = f'<line class="interval" x1="{at}" x2="{at}" y1="{y.at(low):.1f}" y2="{y.at(high):.1f}"/>'
        point = f'<circle class="value" cx="{at}" cy="{y.at(true / n):.1f}" r="5"/>'
        parts.append(f"<g><title>{escape(text)}</title>{line}{point}</g>")
    return _svg(parts, LINE_HEIGHT, title)


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_title: str,
    y_title: str,
    low: float | None = None,
    high: float | None = None,
) -> Markup:
    """Draw lines through points (x, y), each with its name at its end.

    Args:
        lines: Points of each line; those that are not finite are left out.
        title: What the chart shows, for screen readers.
        x_title: Title of the horizontal axis.
        y_title: Title of the vertical axis.
        low: Lower end of the vertical axis; by default the smallest value.
        high: Upper end; by default the largest value.
    """
    drawn = {name: [p for p in points if math.isfinite(p[0] + p[1])] for name, points in lines.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    xs = [p[0] for points in drawn.values() for p in points] or [0.0, 1.0]
    ys = [p[1] for points in drawn.values() for p in points] or [0.0, 1.0]
    x = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT, whole=all(float(each).is_integer() for each in xs))
    y = _Axis(min(ys) if low is None else low, max(ys) if high is None else high, LINE_HEIGHT - BOTTOM, TOP)
    parts = [_frame(x, y, x_title, y_title)]
    for index, (name, points) in enumerate(drawn.items()):
        style = f"line-{index % SERIES}"
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in points)
        parts.append(f'<polyline class="{style}" points="{path}"><title>{escape(name)}</title></polyline>')
        if len(points) == 1:
            (a, b) = points[0]
            parts.append(f'<circle class="{style}" cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="3"/>')
    return _svg(parts, LINE_HEIGHT, title) + _key(drawn)


def difference_plot(rows: Mapping[str, ChartInterval], *, title: str) -> Markup:
    """Draw differences as `interval_plot` does, with 0 in view, whichever side of it they lie on."""
    ends = [0.0, *(end for row in rows.values() for end in row if math.isfinite(end))]
    return interval_plot(rows, title=title, low=min(ends), high=max(ends))


class _Axis:
    """Linear scale from values to pixels.

    Args:
        low: Value at `start`.
        high: Value at `end`; a span of nothing is widened.
        start: Pixel of the lower end.
        end: Pixel of the upper end.
        whole: Whether ticks are whole numbers, as of epochs.
    """

    def __init__(self, low: float, high: float, start: float, end: float, whole: bool = False) -> None:
        self.low, self.high = low, high if high - low > SMALLEST_SPAN else low + (abs(low) or 1.0)
        self.start, self.end = start, end
        self.finest = 1.0 if whole else 0.0

    def at(self, value: float) -> float:
        """Return the pixel of a value; those outside are at the ends."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """About five round values between the ends."""
        rough = max((self.high - self.low) / 5, self.finest)
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [step * k for k in range(first, last + 1)]


def _rows(
    names: Sequence[str], values: Sequence[float], low: float | None, high: float | None, unit: str
) -> tuple[_Axis, list[str], int]:
    """Return the axis of a chart with a row for each name, its parts so far, and its height."""
    width = min(MOST_NAMES, max([NAMES, *(12 + CHARACTER * len(name) for name in names)]))
    start = min(values, default=0.0) if low is None else low
    axis = _Axis(start, max(values, default=1.0) if high is None else high, width, WIDTH - RIGHT)
    height = TOP + ROW * len(names) + BOTTOM
    parts = [_gridlines(axis, TOP, height - BOTTOM, unit)]
    for index, name in enumerate(names):
        parts.append(
            f'<text class="name" x="{width - 10:.0f}" y="{TOP + ROW * (index + 0.5) + 4:.1f}" '
            f'text-anchor="end"><title>{escape(name)}</title>{escape(_cut(name))}</text>'
        )
    return axis, parts, height


def _frame(x: _Axis, y: _Axis, x_title: str, y_title: str) -> str:
    horizontal = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.at(t):.1f}" y2="{y.at(t):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y.at(t) + 4:.1f}" text-anchor="end">{_number(t)}</text>'
        for t in y.ticks
    )
    vertical = "".join(
        f'<text x="{x.at(t):.1f}" y="{LINE_HEIGHT - BOTTOM + 16}" text-anchor="middle">{_number(t)}</text>'
        for t in x.ticks
    )
    return (
        f"{horizontal}{vertical}"
        f'<text class="axis" x="{WIDTH - RIGHT}" y="{LINE_HEIGHT - 4}" text-anchor="end">'
        f"{escape(x_title)}</text>"
        f'<text class="axis" x="{LEFT + 4}" y="{TOP - 2}">{escape(y_title)}</text>'
    )


def _gridlines(axis: _Axis, top: float, bottom: float, unit: str) -> str:
    return "".join(
        f'<line class="grid" x1="{axis.at(t):.1f}" x2="{axis.at(t):.1f}" y1="{top}" y2="{bottom}"/>'
        f'<text x="{axis.at(t):.1f}" y="{bottom + 16}" text-anchor="middle">{_number(t)}{escape(unit)}</text>'
        for t in axis.ticks
    )


def _dot(x: float, y: float, point: ChartPoint, text: str) -> str:
    opens = "" if point.case is None else f' data-case="{point.case}"'
    return (
        f'<circle class="dot"{opens} cx="{x:.1f}" cy="{y:.1f}" r="4">'
        f"<title>{escape(point.name)}, {escape(text)}</title></circle>"
    )


def _key(lines: Mapping[str, object]) -> Markup:
    """Return the legend of a line chart."""
    entries = "".join(
        '<li><svg width="22" height="10" aria-hidden="true">'
        f'<line class="line-{index % SERIES}" x1="0" x2="22" y1="5" y2="5"/></svg> {escape(name)}</li>'
        for index, name in enumerate(lines)
    )
    return Markup(f'<ul class="key">{entries}</ul>') if len(lines) > 1 else Markup("")


def _svg(parts: Sequence[str], height: float, title: str) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _wilson(true: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval of 95 % of a share of `true` in `n`."""
    z = 1.96
    centre = (true + z * z / 2) / (n + z * z)
    reach = z / (n + z * z) * math.sqrt(true * (n - true) / n + z * z / 4)
    return centre - reach, centre + reach


def _jitter(position: int) -> float:
    """Return a shift in pixels, the same in every report, that keeps equal values apart."""
    return ((position * 7) % 11 - 5) * 1.1


def _number(value: float) -> str:
    return f"{value:.6g}"


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
