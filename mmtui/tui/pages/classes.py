"""Per-class IoU of a run beside a baseline and the published value, and what it takes for what."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mmtui.domain.views import ClassRow, ClassTable
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.tui.pages.graph import SHADES, glyph_of
from mmtui.tui.widgets.panels import Line, fit
from mmtui.tui.widgets.plot import bar, spark

SORTS = ("as listed", "worst first", "gain first", "loss first")
MOST_CONFUSIONS = 8


def classes(
    home: Home,
    run_id: str,
    width: int,
    ascii_only: bool,
    sort: int = 0,
    against: str = "",
    until: int | None = None,
) -> list[Line]:
    """IoU now, best and before, difference to the run ``against``, share of pixels; confusions below."""
    found = runs.class_table(home, run_id, until=until)
    if found is None:
        return [[("no evaluation yet", "dim")]]
    base = runs.class_table(home, against) if against else None
    before = {row.name: row.iou for row in base.classes} if base is not None else {}
    rows = sorted(found.classes, key=_order(sort, before))
    pixels = sum(row.pixels for row in found.classes) or 1
    name_width = min(max((len(row.name) for row in rows), default=8), 18)
    room = max(min(width - name_width - 50, 40), 4)
    head = f"  {'class':{name_width}} {'IoU %':>6} {'best':>6} {'diff':>6} {'acc':>6} {'pixels':>7}  "
    lines = [*_means(home, run_id, found, base, against), [(f"{head}{'IoU':{room}} history", "dim")]]
    for row in rows:
        difference = None if row.iou is None or before.get(row.name) is None else row.iou - (before[row.name] or 0.0)
        best = max((value for value in row.history if value is not None), default=None)
        text = f"{glyph_of(row.index)} {fit(row.name, name_width, ascii_only)} {_percent(row.iou)} {_percent(best)} "
        style = "" if difference is None else "good" if difference > 0.005 else "red" if difference < -0.005 else ""
        lines.append(
            [
                (text, "" if row.iou is not None else "dim"),
                (f"{'-' if difference is None else f'{100 * difference:+.1f}':>6} ", style),
                (f"{_percent(row.accuracy)} {100 * row.pixels / pixels:>6.2f}%  ", "dim"),
                (bar(row.iou or 0.0, room, ascii_only), "cyan"),
                (f" {spark(list(row.history)[-12:], ascii_only, top=1.0)}", "dim"),
            ]
        )
    return [*lines, [], *_confusions(found, width, ascii_only)]


def _means(home: Home, run_id: str, found: ClassTable, base: ClassTable | None, against: str) -> list[Line]:
    mean = "-" if found.miou is None else f"{100 * found.miou:.2f}"
    line: Line = [(f"mIoU {mean} over {found.num_present}/{len(found.classes)} classes", "title")]
    line.append((f"  {found.stage} step {found.step}", "dim"))
    if base is not None and base.miou is not None and found.miou is not None:
        line.append((f"  run {against}: {100 * base.miou:.2f}, {100 * (found.miou - base.miou):+.2f}", ""))
    published = (runs.get_run(home, run_id).config.get("reference") or {}).get("miou")
    if published is not None and found.miou is not None:
        line.append((f"  published: {published:.1f}, {100 * found.miou - published:+.1f}", "warn"))
    return [line]


def _order(sort: int, before: dict[str, float | None]) -> Callable[[ClassRow], tuple[bool, float]]:
    """Key of a way of sorting; classes without a value come last."""

    def key(row: ClassRow) -> tuple[bool, float]:
        other = before.get(row.name)
        value: float | None
        if sort == 0:
            return False, row.index
        if sort == 1:
            value = row.iou
        else:
            value = None if row.iou is None or other is None else (other - row.iou) * (1 if sort == 2 else -1)
        return value is None, value or 0.0

    return key


def _percent(share: float | None) -> str:
    return f"{'-' if share is None else f'{100 * share:.1f}':>6}"


def _confusions(found: ClassTable, width: int, ascii_only: bool) -> list[Line]:
    """The largest shares of a class that are taken for another, and all of them as a heat map."""
    totals = [sum(row) for row in found.confusion]
    names = [row.name for row in found.classes]
    wrong = [
        (count / totals[truth], truth, other)
        for truth, row in enumerate(found.confusion)
        for other, count in enumerate(row)
        if other != truth and totals[truth] and count
    ]
    arrow = "->" if ascii_only else "→"
    lines: list[Line] = [[("taken for another", "title"), ("  share of the class's pixels", "dim")]]
    for share, truth, other in sorted(wrong, reverse=True)[:MOST_CONFUSIONS]:
        lines.append([(f"{100 * share:5.1f}%  {fit(names[truth], 18, ascii_only)} {arrow} {names[other]}", "")])
    shades, count = SHADES[1 if ascii_only else 0], min(len(names), max((width - 22) // 2, 1))
    lines += [[], [("truth down, prediction across", "dim")], [(_head(count), "dim")]]
    for truth in range(count):
        cells = ""
        for other in range(count):
            share = found.confusion[truth][other] / totals[truth] if totals[truth] else 0.0
            cells += shades[min(math.ceil(share * (len(shades) - 1)), len(shades) - 1)] * 2
        lines.append([(f"{glyph_of(truth)} {fit(names[truth], 18, ascii_only)} ", "dim"), (cells, "")])
    return lines


def _head(count: int) -> str:
    letters: Sequence[str] = [glyph_of(index) for index in range(count)]
    return " " * 21 + " ".join(letters)
