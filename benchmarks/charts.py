"""Two kinds of SVG chart in a few lines: bars with their spread, and lines over a growing quantity. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from benchmarks.ratios import Spread

_WIDTH: Final = 760
_LABELS: Final = 230
_BAR: Final = 22
_INK: Final = "#222"
_COLOURS: Final = ("#1f6f8b", "#c8553d", "#588157", "#8d6a9f", "#b08968", "#5c677d")


def bars(title: str, rows: Sequence[tuple[str, Spread]], *, unit: str, mark: str = "") -> str:
    """Draw a bar for each row, with a line from the lowest to the highest round; the row named ``mark`` stands out."""
    most = max((row.highest for _, row in rows), default=1.0) or 1.0
    scale = (_WIDTH - _LABELS - 110) / most
    height = 34 + _BAR * len(rows)
    parts = [_text(4, 16, title, weight="bold")]
    for number, (label, row) in enumerate(rows):
        top = 28 + _BAR * number
        middle = top + _BAR / 2 - 3
        colour = _COLOURS[1] if label == mark else _COLOURS[0]
        parts.append(_text(_LABELS - 6, middle + 4, label, anchor="end"))
        width = max(1.0, row.middle * scale)
        parts.append(f'<rect x="{_LABELS}" y="{top}" width="{width:.1f}" height="{_BAR - 6}" fill="{colour}"/>')
        low, high = _LABELS + row.lowest * scale, _LABELS + row.highest * scale
        parts.append(f'<line x1="{low:.1f}" y1="{middle:.1f}" x2="{high:.1f}" y2="{middle:.1f}" stroke="{_INK}"/>')
        parts.append(_text(high + 6, middle + 4, f"{row.middle:.3g} {unit}"))
    return _svg(height, parts, title)


def lines(title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str) -> str:
    """Draw a line for each series over ``x``, which is logarithmic; ``y`` starts at zero."""
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    lowest, highest = (math.log10(bound(max(1.0, at) for at, _ in points)) for bound in (min, max))
    most = max(value for _, value in points) or 1.0
    left, right, top, bottom = 70, _WIDTH - 200, 34, 220

    def place(at: float, value: float) -> tuple[float, float]:
        share = (math.log10(max(1.0, at)) - lowest) / (highest - lowest or 1.0)
        return left + share * (right - left), bottom - value / most * (bottom - top)

    parts = [_text(4, 16, title, weight="bold"), _text((left + right) / 2, bottom + 34, x, anchor="middle")]
    parts.append(f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}" stroke="{_INK}"/>')
    parts.append(f'<line x1="{left}" y1="{top}" x2="{left}" y2="{bottom}" stroke="{_INK}"/>')
    parts += [_text(left - 6, top + 4, f"{most:.3g}", anchor="end"), _text(left - 6, bottom + 4, "0", anchor="end")]
    parts.append(_text(left + 6, top + 4, y))
    parts += [
        _text(place(at, 0)[0], bottom + 16, f"{at:,.0f}", anchor="middle") for at in sorted({at for at, _ in points})
    ]
    for number, (label, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [place(*point) for point in line]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{colour}"/>' for across, down in places]
        if places:
            parts.append(_text(places[-1][0] + 8, places[-1][1] + 4, label, colour=colour))
    return _svg(bottom + 44, parts, title)


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    size = f'viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" height="{height:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}"'
        f' font-family="system-ui, sans-serif" font-size="12">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = _INK) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
