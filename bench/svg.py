"""Draws bars and curves as plain SVG text: readable on a light and on a dark page, and by a screen reader.

A chart is panels below one another. Scales are logarithmic: what is compared differs by up to a thousand times.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

WIDTH = 760
_LEFT, _RIGHT, _ROW, _PLOT_HEIGHT, _TOP = 110, 110, 24, 220, 58
_STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 15px; font-weight: 600; }
.panel { font-weight: 600; }
.faint { fill: #59636e; }
.page { fill: #ffffff; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.curve { fill: none; stroke-width: 2; }
.k0 { fill: #6e7781; stroke: #6e7781; } .k1 { fill: #1a7f37; stroke: #1a7f37; } .k2 { fill: #cf222e; stroke: #cf222e; }
.k3 { fill: #8250df; stroke: #8250df; } .k4 { fill: #9a6700; stroke: #9a6700; } .k5 { fill: #0969da; stroke: #0969da; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.faint { fill: #9198a1; }
.page { fill: #0d1117; }
.grid { stroke: #3d444d; }
.k0 { fill: #9198a1; stroke: #9198a1; } .k1 { fill: #3fb950; stroke: #3fb950; } .k2 { fill: #ff7b72; stroke: #ff7b72; }
.k3 { fill: #bc8cff; stroke: #bc8cff; } .k4 { fill: #d29922; stroke: #d29922; } .k5 { fill: #58a6ff; stroke: #58a6ff; }
}
"""
_KINDS = 6
_DASHES = ("", "7 3", "", "2 3", "9 3 2 3", "4 4")


class Bars(NamedTuple):
    """A panel with a bar for each name; ``unit`` stands beside the title."""

    title: str
    unit: str
    values: dict[str, float]


class Curves(NamedTuple):
    """A panel with a curve for each name, of points (x, y); y is logarithmic, x stands between ``ticks``.

    ``ticks`` are (x, label); the first and the last are the ends of the axis.
    """

    title: str
    x_title: str
    y_title: str
    ticks: Sequence[tuple[float, str]]
    series: dict[str, list[tuple[float, float]]]


class Chart(NamedTuple):
    """A whole drawing. ``note`` is the line below the title; ``kinds`` fixes which name has which colour."""

    title: str
    note: str
    kinds: Sequence[str]
    panels: Sequence[Bars | Curves]


def drawn(chart: Chart) -> str:
    """The SVG document. Its ``desc`` says every figure in words."""
    body: list[str] = []
    at = _TOP
    for panel in chart.panels:
        lines, height = _bars(panel, chart.kinds, at) if isinstance(panel, Bars) else _curves(panel, chart.kinds, at)
        body += lines
        at += height
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {at}" width="{WIDTH}" height="{at}"'
        ' role="img" aria-labelledby="title desc">'
    )
    return "\n".join(
        (
            head,
            f'<title id="title">{escape(chart.title)}</title>',
            f'<desc id="desc">{escape(" ".join(_told(panel) for panel in chart.panels))}</desc>',
            f"<style>\n{_STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{at}"/>',
            _text(16, 24, chart.title, "title"),
            _text(16, 42, chart.note, "faint"),
            *body,
            "</svg>\n",
        )
    )


def figure(value: float) -> str:
    """A number with three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _bars(panel: Bars, kinds: Sequence[str], top: int) -> tuple[list[str], int]:
    lines = [_text(16, top + 16, panel.title, "panel"), _text(WIDTH - 16, top + 16, panel.unit, "faint", "end")]
    most = max(panel.values.values(), default=1.0)
    low = math.log10(min(panel.values.values(), default=1.0)) - 0.5
    span = max(0.5, math.log10(most) - low)
    for number, (name, value) in enumerate(panel.values.items()):
        y = top + 26 + number * _ROW
        width = (WIDTH - _LEFT - _RIGHT) * (math.log10(value) - low) / span
        kind = _kind(name, kinds)
        lines.append(_text(_LEFT - 8, y + 14, name, "", "end"))
        lines.append(f'<rect class="k{kind}" x="{_LEFT}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 8}"/>')
        lines.append(_text(_LEFT + width + 6, y + 14, figure(value)))
    return lines, 26 + len(panel.values) * _ROW + 16


def _curves(panel: Curves, kinds: Sequence[str], top: int) -> tuple[list[str], int]:
    plot_top, floor = top + 28, top + 28 + _PLOT_HEIGHT
    lines = [_text(16, top + 16, panel.title, "panel"), _text(WIDTH - 16, top + 16, panel.y_title, "faint", "end")]
    values = [y for points in panel.series.values() for _, y in points if y > 0]
    marks = _marks(values)
    low, high = math.log10(marks[0]), math.log10(marks[-1])
    first, last = panel.ticks[0][0], panel.ticks[-1][0]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first)
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * across, floor - _PLOT_HEIGHT * (math.log10(y) - low) / (high - low)

    for mark in marks:
        _, y = place(first, mark)
        lines.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        lines.append(_text(_LEFT - 8, y + 4, figure(mark), "faint", "end"))
    for x, label in panel.ticks:
        lines.append(_text(place(x, marks[0])[0], floor + 16, label, "faint", "middle"))
    lines.append(_text((_LEFT + WIDTH - _RIGHT) / 2, floor + 34, panel.x_title, "faint", "middle"))
    ends = {}
    for name, points in panel.series.items():
        placed = [place(x, y) for x, y in points if y > 0]
        if placed:
            kind = _kind(name, kinds)
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
            dash = f" stroke-dasharray={quoteattr(_DASHES[kind])}" if _DASHES[kind] else ""
            lines.append(f'<path class="curve k{kind}" style="fill:none" d="{path}"{dash}/>')
            ends[name] = placed[-1]
    lines += _labels(ends, plot_top, kinds)
    return lines, 28 + _PLOT_HEIGHT + 48


def _labels(ends: dict[str, tuple[float, float]], top: float, kinds: Sequence[str]) -> list[str]:
    """The curves' names at their right ends, moved apart where they would overlap."""
    lines = []
    free = top
    for name, (x, y) in sorted(ends.items(), key=lambda item: item[1][1]):
        free = max(free, y)
        lines.append(f'<circle class="k{_kind(name, kinds)}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        lines.append(_text(x + 8, free + 4, name))
        free += 15
    return lines


def _marks(values: Iterable[float]) -> list[float]:
    """Gridlines at 1, 2 and 5 times powers of ten, around the values; at powers of ten alone where they are far."""
    known = list(values) or [1.0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    steps = (1, 2, 5) if high - low <= 2 else (1,)
    every = [step * 10.0**power for power in range(low - 1, high + 1) for step in steps]
    below = max(mark for mark in every if mark <= min(known))
    above = min((mark for mark in every if mark >= max(known)), default=10.0 ** (high + 1))
    kept = [mark for mark in every if below <= mark <= above]
    return kept if len(kept) > 1 else [below, below * 10]


def _kind(name: str, kinds: Sequence[str]) -> int:
    return kinds.index(name) % _KINDS if name in kinds else _KINDS - 1


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    attributes = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor != "start" else "")
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(text)}</text>'


def _told(panel: Bars | Curves) -> str:
    if isinstance(panel, Bars):
        return f"{panel.title}, {panel.unit}: " + ", ".join(f"{n} {figure(v)}" for n, v in panel.values.items()) + "."
    told = []
    for name, points in panel.series.items():
        by_x = dict(points)
        told.append(f"{name} " + ", ".join(f"{label} {figure(by_x[x])}" for x, label in panel.ticks if x in by_x))
    return f"{panel.title}, {panel.y_title} by {panel.x_title}: " + "; ".join(told) + "."
