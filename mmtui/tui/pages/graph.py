"""The match graph of a run: statistics, class pairs, distances over time, embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmtui.domain.views import GraphStats
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.tui.pages.compose import column_width, columns
from mmtui.tui.widgets.panels import Line, fit
from mmtui.tui.widgets.panels import graph as panel
from mmtui.tui.widgets.plot import spark

LEAST_WIDTH = 50
GLYPHS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
STYLES = ("cyan", "green", "yellow", "red", "magenta", "")
SHADES = (" ░▒▓█", " .:+#")


def glyph_of(index: int) -> str:
    """The letter that stands for a class, the same in every drawing."""
    return GLYPHS[index % len(GLYPHS)]


def style_of(index: int) -> str:
    """A colour beside the letter: never instead of it."""
    return STYLES[index % len(STYLES)]


def graph(home: Home, run_id: str, width: int, height: int, ascii_only: bool, until: int | None = None) -> list[Line]:
    """Everything about the newest match graph, or the newest up to a global step."""
    names = runs.get_run(home, run_id).classes
    history = runs.graph_history(home, run_id, 400, until=until)
    stats = history[-1] if history else None
    each = column_width(width, LEAST_WIDTH, 4)
    if stats is None:
        return panel(None, names, each, height, ascii_only)
    projections = [
        event
        for event in runs.events_tail(home, run_id, kind="projection")
        if until is None or event["global_step"] <= until
    ]
    blocks = [
        [[("newest graph", "title")], *panel(stats, names, each, 12 + len(names), ascii_only)],
        _scatter(projections[-1] if projections else None, names, each, ascii_only),
        _pairs(stats.values, names, each, ascii_only),
        _distances(history, each, ascii_only),
    ]
    return columns(blocks, width, LEAST_WIDTH)


def _scatter(event: dict[str, Any] | None, names: Sequence[str], width: int, ascii_only: bool) -> list[Line]:
    """Embeddings in two dimensions, a letter for each class."""
    if event is None:
        return [[("embeddings", "title"), ("  none yet", "dim")]]
    values, rows = event["values"], 14
    points = [
        (float(x), float(y), int(label))
        for x, y, label in zip(values.get("x") or (), values.get("y") or (), values.get("label") or (), strict=False)
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]
    title: Line = [("embeddings", "title"), (f"  step {event['step']}, {len(points)} nodes, by PCA", "dim")]
    if not points:
        return [title]
    low_x, high_x = min(p[0] for p in points), max(p[0] for p in points)
    low_y, high_y = min(p[1] for p in points), max(p[1] for p in points)
    grid = [[(" ", "")] * width for _ in range(rows)]
    for x, y, label in points:
        column = round((x - low_x) / ((high_x - low_x) or 1.0) * (width - 1))
        row = round((high_y - y) / ((high_y - low_y) or 1.0) * (rows - 1))
        grid[row][column] = (glyph_of(label), style_of(label))
    legend: Line = []
    for index in sorted({label for _, _, label in points}):
        name = names[index] if 0 <= index < len(names) else f"class {index}"
        legend.append((f"{glyph_of(index)} {fit(name, 12, ascii_only).strip()}  ", style_of(index)))
    return [title, *[_joined(cells) for cells in grid], legend]


def _joined(cells: Sequence[tuple[str, str]]) -> Line:
    """Neighbours of one style as one span."""
    line: Line = []
    for text, style in cells:
        if line and line[-1][1] == style:
            line[-1] = (line[-1][0] + text, style)
        else:
            line.append((text, style))
    return line


def _pairs(values: dict[str, Any], names: Sequence[str], width: int, ascii_only: bool) -> list[Line]:
    """How many rejective edges run between each two classes."""
    pairs = {(int(a), int(b)): int(n) for a, b, n in values.get("class_pairs") or ()}
    title: Line = [("rejective edges between classes", "title")]
    if not pairs:
        return [title, [("none", "dim")]]
    count = min(max(len(names), 1 + max(max(pair) for pair in pairs)), max((width - 18) // 2, 1))
    largest, shades = max(pairs.values()), SHADES[1 if ascii_only else 0]
    lines: list[Line] = [title, [(" " * 17 + " ".join(glyph_of(c) for c in range(count)), "dim")]]
    for row in range(count):
        name = names[row] if row < len(names) else f"class {row}"
        cells = ""
        for column in range(count):
            number = pairs.get((row, column), 0) + (pairs.get((column, row), 0) if row != column else 0)
            cells += shades[min(math.ceil(number / largest * (len(shades) - 1)), len(shades) - 1)] * 2
        lines.append([(f"{glyph_of(row)} {fit(name, 14, ascii_only)} ", "dim"), (cells, "")])
    worst = sorted(pairs.items(), key=lambda item: -item[1])[:3]
    words = ", ".join(f"{glyph_of(a)}-{glyph_of(b)} {n}" for (a, b), n in worst)
    return [*lines, [(f"most: {words}", "dim")]]


def _distances(history: Sequence[GraphStats], width: int, ascii_only: bool) -> list[Line]:
    """Histograms of d+ and d- as training goes on, oldest on top, and the share of active triplets."""
    rows = 14
    step = max(math.ceil(len(history) / rows), 1)
    shown = [*history[::-1][::step]][::-1]
    lines: list[Line] = [[("distances over time", "title"), ("  0 to 4", "dim")]]
    lines.append([(f"{'step':>7} {'d+':16}  {'d-':16}  active", "dim")])
    for stats in shown:
        v = stats.values
        active = v.get("active_triplets")
        lines.append(
            [
                (f"{stats.step:>7} ", ""),
                (f"{spark(v.get('d_pos_hist') or [], ascii_only):16}  ", "good"),
                (f"{spark(v.get('d_neg_hist') or [], ascii_only):16}  ", "red"),
                ("-" if active is None else f"{100 * active:3.0f}%", ""),
            ]
        )
    return lines
