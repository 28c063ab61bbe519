"""Line charts as SVG, for reports: no library, no script, no request to anywhere. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from mmtui.domain.numbers import bounded

# Okabe and Ito (2008): colours that people with any kind of colour vision can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 260, 62, 12, 14, 34

FEW = 12
"""Up to so many points are marked: between them nothing was measured."""

Line = tuple[str, Sequence[tuple[float, float]]]
"""A name and points (x, y) in the order of x; not finite ones are left out."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between two limits: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = max((high - low) / count, 1e-300)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def chart(title: str, lines: Sequence[Line], x_name: str = "step") -> str:
    """A chart of several lines with axes and a legend; "" if there is nothing to draw."""
    kept = [(name, [(bounded(x), bounded(y)) for x, y in points if _finite(x, y)]) for name, points in lines]
    kept = [(name, points) for name, points in kept if points]
    if not kept:
        return ""
    xs = [x for _, points in kept for x, _ in points]
    ys = [y for _, points in kept for _, y in points]
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(ys), max(ys)
    if high_y == low_y:
        pad = max(0.5, abs(low_y) * 2.0**-40)
        low_y, high_y = low_y - pad, high_y + pad

    def at(x: float, y: float) -> tuple[float, float]:
        share_x = (x - low_x) / (high_x - low_x) if high_x > low_x else 0.5
        share_y = (y - low_y) / (high_y - low_y)
        return LEFT + share_x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share_y * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">']
    for value in ticks(low_y, high_y):
        _, y = at(low_x, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for value in ticks(low_x, high_x):
        x, _ = at(value, low_y)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{value:.6g}</text>')
    for number, (name, points) in enumerate(kept):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{path}"/>')
        for x, y in (at(*point) for point in points if len(points) <= FEW):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        if len(kept) > 1:
            y = TOP + 14 * number
            parts.append(f'<rect x="{WIDTH - 200}" y="{y - 4}" width="12" height="3" fill="{colour}"/>')
            parts.append(f'<text class="tick" x="{WIDTH - 183}" y="{y + 1}">{escape(name)}</text>')
    parts.append(
        f'<text class="tick" x="{WIDTH / 2}" y="{HEIGHT - 3}" text-anchor="middle">{escape(x_name)}</text></svg>'
    )
    return "".join(parts)


def _finite(x: float, y: float) -> bool:
    return math.isfinite(x) and math.isfinite(y)


_STYLE = "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}svg{background:#fff}"


def standalone(drawn: str) -> str:
    """A chart as a file of its own: with its size, its style and the name space that viewers ask for."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
    first, _, rest = drawn.removeprefix("<svg ").partition(">")
    return f"{head}{first}><style>{_STYLE}</style>{rest}\n"
