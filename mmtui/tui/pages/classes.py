"""Per-class IoU of a run beside a baseline and the published values, and what it takes for what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from engine.events.numbers import finite
from mmtui.domain.text import fixed, printable, signed
from mmtui.domain.views import ClassRow, ClassTable, doubted, doubtful
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.tui.pages.compose import two_columns
from mmtui.tui.pages.graph import SHADES, heat_map
from mmtui.tui.pages.panes import FIRST_PANE, Focus, Laid, Pane, drawn, lay, marked
from mmtui.tui.widgets.panels import Line, fit, glyph_of, wrapped
from mmtui.tui.widgets.plot import bar, spark

SORTS = ("as listed", "worst first", "gain first", "loss first")
PANES = ("classes", "taken for another", "confusion")
MOST_CONFUSIONS = 8
TAKEN = (0.02, 0.1, 0.25, 0.5)
"""A shade of the confusions for more than each of these shares of a class's pixels."""
WIDE, SIDE = 130, 60
"""From so many cells on, the confusions stand beside the table, so many cells wide."""
Shares = Mapping[str, float | None]


@dataclass(frozen=True)
class View:
    """How the classes are looked at.

    Attributes:
        sort: which of ``SORTS``.
        against: id of the run they are compared with, "" = none.
        until: global step up to which evaluations count, None: the newest.
    """

    sort: int = 0
    against: str = ""
    until: int | None = None


@dataclass(frozen=True)
class _Tables:
    """What the page shows, as shares 0-1 by class name."""

    found: ClassTable
    rows: Sequence[ClassRow]
    base: ClassTable | None
    against: str
    before: Shares
    published: Shares
    published_mean: float | None
    sort: int

    @property
    def compared(self) -> tuple[str, Shares]:
        """What gain and loss are measured by, and in words."""
        if self.base is not None:
            return f"run {self.against}", self.before
        return ("published", self.published) if self.published else ("", {})


def classes(
    home: Home,
    run_id: str,
    size: tuple[int, int],
    ascii_only: bool,
    view: View = View(),
    focus: Focus = FIRST_PANE,
) -> Laid:
    """IoU now, best and before, differences, share of pixels; confusions beside or below."""
    tables = _read(home, run_id, view)
    if tables is None:
        return Laid([[("no evaluation yet", "dim")]])
    panes = [
        Pane(PANES[0], partial(_table, tables, ascii_only)),
        Pane(PANES[1], partial(_confusions, tables.found, focus.alone, ascii_only)),
        Pane(PANES[2], partial(_matrix, tables.found, ascii_only)),
    ]
    width, height = size
    if focus.alone:
        return lay(panes, size, width, focus, ascii_only, home)
    here = focus.name or PANES[0]
    if width < WIDE:
        return lay(panes, (width, height), width, focus, ascii_only, home)
    left, right = width - SIDE - 2, SIDE
    widths = (left, right, right)
    table, listed, matrix = (
        marked(drawn(pane, each, height, ascii_only, home), pane.name == here, ascii_only)
        for pane, each in zip(panes, widths, strict=True)
    )
    lines = two_columns(table, left, [*listed, [], *matrix], right)
    return Laid(lines, 0, len(lines))


def _read(home: Home, run_id: str, view: View) -> _Tables | None:
    found = runs.class_table(home, run_id, until=view.until)
    if found is None:
        return None
    base = runs.class_table(home, view.against) if view.against else None
    before = {row.name: row.iou for row in base.classes} if base is not None else {}
    reference = runs.get_run(home, run_id).section("reference")
    known = {row.name for row in found.classes}
    published = {name: share for name, share in _published(reference).items() if name in known}
    mean = finite(reference.get("miou"))
    compared = before if base is not None else published
    rows = sorted(found.classes, key=_order(view.sort, compared))
    return _Tables(
        found=found,
        rows=rows,
        base=base,
        against=view.against,
        before=before,
        published=published,
        published_mean=None if mean is None else mean / 100,
        sort=view.sort,
    )


def _published(reference: Mapping[str, object]) -> dict[str, float]:
    """The IoUs of classes that a recipe names as published, as shares."""
    told = reference.get("per_class")
    numbers = {str(name): finite(value) for name, value in told.items()} if isinstance(told, Mapping) else {}
    return {name: value / 100 for name, value in numbers.items() if value is not None}


def _order(sort: int, before: Shares) -> Callable[[ClassRow], tuple[bool, float]]:
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


# ---- the table -----------------------------------------------------------------------------------------------------


def _table(tables: _Tables, ascii_only: bool, width: int, height: int) -> list[Line]:
    """A line for each class, and one for the mean."""
    found, pixels = tables.found, sum(row.pixels for row in tables.found.classes) or 1
    accuracy = width >= 96
    columns = [f"{'IoU %':>6}", f"{'best':>6}"]
    columns += [f"{f'vs run {tables.against}'[-8:]:>8}"] if tables.base is not None else []
    columns += [f"{'publ.':>6} {'vs publ.':>8}"] if tables.published else []
    columns += [f"{'acc':>6}"] if accuracy else []
    head = " ".join([*columns, f"{'pixels':>7}"])
    name_width = min(max((len(row.name) for row in tables.rows), default=8), 18, max(width - len(head) - 22, 6))
    left = width - 2 - name_width - len(head) - 5
    past = max(min(max((len(row.history) for row in tables.rows), default=1), left - 6, max(left // 3, 8)), 0)
    room = max(min(left - past, 40), 4)
    lines = [
        *_means(tables, width),
        [(f"  {'class':{name_width}} {head}  {'':{room}} {'history'[: max(past, 4)]}", "dim")],
    ]
    for row in tables.rows:
        lines.append(
            [
                (
                    f"{glyph_of(row.index)} {fit(row.name, name_width, ascii_only)} ",
                    "" if row.iou is not None else "dim",
                ),
                *_numbers(tables, row),
                (f"{_percent(row.accuracy)} " if accuracy else "", "dim"),
                (f"{f'{100 * row.pixels / pixels:.2f}%' if row.pixels else '-':>7}  ", "dim"),
                (" " * room if row.iou is None else bar(row.iou, room, ascii_only), "cyan"),
                (f" {spark(list(row.history)[-past:] if past else [], ascii_only, top=1.0)}", "dim"),
            ]
        )
    word = "" if len(found.classes) == found.num_present else "  - not in these images: no IoU, and not in the mean"
    return [*lines, [(word, "dim")]] if word else lines


def _numbers(tables: _Tables, row: ClassRow) -> list[tuple[str, str]]:
    """IoU now and best, and what it differs by from the baseline and from what was published."""
    best = max((value for value in row.history if value is not None), default=None)
    spans = [(f"{_percent(row.iou)} {_percent(best)} ", "" if row.iou is not None else "dim")]
    if tables.base is not None:
        spans.append(_difference(row.iou, tables.before.get(row.name), 8))
    if tables.published:
        known = tables.published.get(row.name)
        spans += [(f"{_percent(known)} ", "dim"), _difference(row.iou, known, 8)]
    return spans


def _difference(now: float | None, before: float | None, width: int) -> tuple[str, str]:
    if now is None or before is None:
        return f"{'-':>{width}} ", "dim"
    points = 100 * (now - before)
    return f"{signed(points, 1):>{width}} ", "good" if points > 0.5 else "red" if points < -0.5 else ""


def _means(tables: _Tables, width: int) -> list[Line]:
    found, base = tables.found, tables.base
    mean = doubted("-" if found.miou is None else f"{100 * found.miou:.2f}", found.doubts)
    line: Line = [(f"mIoU {mean} over {found.num_present}/{len(found.classes)} classes", "title")]
    line.append((f"  {printable(found.stage)} step {found.step}", "dim"))
    doubt = wrapped(doubtful(found.doubts), width, "warn") if found.doubts else []
    second: Line = []
    if base is not None:
        words = "no evaluation yet" if base.miou is None else doubted(f"{100 * base.miou:.2f}", base.doubts)
        second.append((f"run {tables.against}: {words}", ""))
        if base.miou is not None and found.miou is not None:
            second.append((f", {100 * (found.miou - base.miou):+.2f}", ""))
        second.append(("   ", ""))
    elif tables.against:
        second.append((f"run {tables.against} has no evaluation   ", "warn"))
    if tables.published_mean is not None and found.miou is not None:
        points = 100 * (found.miou - tables.published_mean)
        second.append((f"published: {fixed(100 * tables.published_mean, 1)}, {signed(points, 1)}   ", "reference"))
    if tables.sort:
        against = tables.compared[0]
        to = f" (to {against or 'nothing: B chooses a run'})" if tables.sort > 1 else ""
        second.append((f"{SORTS[tables.sort]}{to}", "dim"))
    return [line, *doubt, second] if second else [line, *doubt]


def _percent(share: float | None) -> str:
    return f"{fixed(None if share is None else 100 * share, 1):>6}"


# ---- confusions ----------------------------------------------------------------------------------------------------


def _confusions(found: ClassTable, alone: bool, ascii_only: bool, width: int, height: int) -> list[Line]:
    """The largest shares of a class that are taken for another."""
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
    for share, truth, other in sorted(wrong, reverse=True)[: height - 1 if alone else MOST_CONFUSIONS]:
        taken = fit(names[other], 18, ascii_only).rstrip()
        lines.append([(f"{100 * share:5.1f}%  {fit(names[truth], 18, ascii_only)} {arrow} {taken}", "")])
    return lines if wrong else [*lines, [("nothing", "dim")]]


def _matrix(found: ClassTable, ascii_only: bool, width: int, height: int) -> list[Line]:
    """All shares of a class that are taken for each, as a heat map."""
    totals, names = [sum(row) for row in found.confusion], [row.name for row in found.classes]
    cells = [
        [count / total if total else 0.0 for count in row] for row, total in zip(found.confusion, totals, strict=True)
    ]
    lines, shown = heat_map(cells, names, width, TAKEN, ascii_only)
    left = f"  ({len(names) - shown} classes have no room)" if shown < len(names) else ""
    shades = SHADES[1 if ascii_only else 0][1:]
    key = " ".join(f"{shade} {100 * limit:.0f}%" for shade, limit in zip(shades, TAKEN, strict=True))
    return [[("confusion", "title"), (f"  rows: truth  {key}{left}", "dim")], *lines]
