"""Several runs beside each other: curves, what differs, classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmtui.domain.text import printable
from mmtui.paths import Home
from mmtui.services import comparing, runs
from mmtui.tui.pages.charts import View, charts
from mmtui.tui.pages.compose import table
from mmtui.tui.widgets.panels import Line, fit


def compare(home: Home, ids: Sequence[str], width: int, height: int, ascii_only: bool) -> list[Line]:
    """Outcome and the keys in which the recipes differ; for two runs what explains the difference, ranked."""
    rows = [
        (name, *(fit(_shown(value), 22, ascii_only).rstrip() for value in values))
        for name, values in comparing.table(home, ids)
    ]
    lines: list[Line] = [[("what differs", "title")]]
    lines += table(("", *(f"run {run_id}" for run_id in ids)), rows, range(1, len(ids) + 1))
    if len(ids) == 2:
        found = [d for d in comparing.differences(home, *ids) if d.area != "outcome"]
        lines += [[], [("why, most telling first", "title")]]
        body = [
            (d.area, d.name, *(fit(_shown(v), 28, ascii_only).rstrip() for v in (d.first, d.second))) for d in found
        ]
        same = [[("nothing that is recorded differs", "dim")]]
        lines += table(("", "", *(f"run {run_id}" for run_id in ids)), body) if body else same
    lines += [[], [("classes, IoU %", "title")], *_classes(home, ids, ascii_only), []]
    return [*lines, *charts(home, ids, width, height, ascii_only, View())]


def _classes(home: Home, ids: Sequence[str], ascii_only: bool) -> list[Line]:
    """Each class in every run, and the difference of the last to the first."""
    tables = [runs.class_table(home, run_id) for run_id in ids]
    found = [one for one in tables if one is not None]
    if not found:
        return [[("no evaluation yet", "dim")]]
    names = [row.name for row in found[0].classes]
    rows = []
    for name in [*names, "mean"]:
        values = [
            None if one is None else one.miou if name == "mean" else {r.name: r.iou for r in one.classes}.get(name)
            for one in tables
        ]
        first, last = values[0], values[-1]
        difference = "-" if first is None or last is None else f"{100 * (last - first):+.1f}"
        shown = ("-" if value is None else f"{100 * value:.1f}" for value in values)
        rows.append((fit(name, 18, ascii_only).rstrip(), *shown, difference))
    return table(("class", *(f"run {run_id}" for run_id in ids), "difference"), rows, range(1, len(ids) + 2))


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else printable(str(value))
