"""Several runs beside each other: what differs and why, code, classes, curves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from mmtui.domain.look import run_colors
from mmtui.domain.text import duration, fixed, number, printable
from mmtui.domain.views import doubted, doubtful
from mmtui.paths import Home
from mmtui.services import code, comparing, runs
from mmtui.tui import faults
from mmtui.tui.pages.charts import ALL, LETTERS, View, charts, metrics
from mmtui.tui.pages.panes import FIRST_PANE, Focus, Laid, Pane, lay
from mmtui.tui.widgets.panels import Line, fit, fit_right, glyph_of, trouble, wrapped

PANES = ("what differs", "why", "code", "classes")
LEAST_WIDTH = 76
LEAST_CELL = 7
SHOWN_LINES = 12
"""Lines of a code difference while the panel is one of several."""


def pane_names(home: Home, ids: Sequence[str]) -> list[str]:
    """The panels of the comparison: tables, then a chart for each metric of the first run."""
    return [*PANES, *metrics(home, ids[0])]


def compare(
    home: Home,
    ids: Sequence[str],
    size: tuple[int, int],
    ascii_only: bool,
    view: View = ALL,
    focus: Focus = FIRST_PANE,
) -> Laid:
    """What differs, and why; code; classes; curves. The first run is the measure."""
    width, height = size
    focus = Focus(focus.name or PANES[0], focus.alone)
    ids, lost = _readable(home, ids, width, ascii_only)
    if lost:
        height = max(height - len(lost), 1)
    if len(ids) < 2:
        return Laid([*lost, [("fewer than two runs are left to compare", "dim")]])
    laid = _side_by_side(home, ids, (width, height), ascii_only, view, focus)
    return Laid([*lost, *laid.lines], laid.first + len(lost), laid.behind + len(lost)) if lost else laid


def _readable(home: Home, ids: Sequence[str], width: int, ascii_only: bool) -> tuple[list[str], list[Line]]:
    """The runs that can be read, and why the others are not there."""
    found, lost = [], []
    for run_id in ids:
        try:
            runs.get_run(home, run_id)
        except Exception as error:
            lost += trouble(f"run {run_id}: {faults.told(home, f'run {run_id}', error)}", width, ascii_only)
        else:
            found.append(run_id)
    return found, lost


def _side_by_side(
    home: Home, ids: Sequence[str], size: tuple[int, int], ascii_only: bool, view: View, focus: Focus
) -> Laid:
    width, height = size
    if focus.alone and focus.name not in PANES:
        return charts(home, ids, width, height, ascii_only, view, focus)
    drawers = (
        partial(_differing, home, ids, ascii_only),
        partial(_reasons, home, ids, ascii_only),
        partial(_code, home, ids, focus.alone, ascii_only),
        partial(_classes, home, ids, ascii_only),
    )
    panes = [Pane(name, drawer) for name, drawer in zip(PANES, drawers, strict=True)]
    tables = lay(panes, size, LEAST_WIDTH, focus, ascii_only, home)
    if focus.alone:
        return tables
    curves = charts(home, ids, width, height, ascii_only, view, focus)
    lines = [*tables.lines, [], *curves.lines]
    if focus.name in PANES:
        return Laid(lines, tables.first, tables.behind)
    above = len(tables.lines) + 1
    return Laid(lines, curves.first + above, curves.behind + above)


def _grid(
    ids: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str], str]],
    width: int,
    ascii_only: bool,
    further: str = "",
    right: bool = False,
) -> list[Line]:
    """A table with a column for each run, in ``width`` cells however many runs there are.

    Args:
        rows: name, one text a run (one more with ``further``), style.
        further: head of a column behind those of the runs.
        right: flush right, for numbers.
    """
    heads = [f"{LETTERS[number % len(LETTERS)]} run {run_id}" for number, run_id in enumerate(ids)]
    heads += [further] if further else []
    longest = max([len(name) for name, _, _ in rows] or [4])
    name_width = max(min(longest, width - len(heads) * (LEAST_CELL + 2), 34), 6)
    widest = max(max((len(text) for _, texts, _ in rows for text in texts), default=4), *map(len, heads))
    each = max(min((width - name_width) // len(heads) - 2, widest, 40), 4)
    put = fit_right if right else fit
    colors = [*run_colors(ids).values(), "dim"]
    head: Line = [(" " * name_width, "")]
    head += [(f"  {put(text, each, ascii_only)}", color) for text, color in zip(heads, colors, strict=False)]
    lines = [head]
    for name, texts, style in rows:
        line: Line = [(_tail(name, name_width, ascii_only), "dim")]
        for column, text in enumerate(texts):
            same = column > 0 and text == texts[0] and column < len(ids)
            line.append((f"  {put(text, each, ascii_only)}", "dim" if same else style))
        lines.append(line)
    return lines


def _tail(name: str, width: int, ascii_only: bool) -> str:
    """A dotted key; where it has no room its end is worth more than its beginning."""
    mark = "~" if ascii_only else "…"
    return fit(name if len(name) <= width else f"{mark}{name[-width + 1 :]}", width, ascii_only)


def _differing(home: Home, ids: Sequence[str], ascii_only: bool, width: int, height: int) -> list[Line]:
    """Outcome and changed keys alone; what is the same of the outcome comes last."""
    found = comparing.table(home, ids)
    doubts = [runs.get_run(home, run_id).row.doubts for run_id in ids]
    shown = [(name, values, _cells(name, values, doubts)) for name, values in found]
    same = [one for one in shown if all(value == one[1][0] for value in one[1]) and len(set(one[2])) == 1]
    differing = [one for one in shown if one not in same]
    rows = [(name, texts, "") for name, _, texts in differing]
    lines = [[("what differs", "title"), ("  outcome, and changed keys of the recipe", "dim")]]
    lines += _grid(ids, rows, width - 2, ascii_only)
    if not any(name not in ("name", *comparing.OUTCOME) for name, _, _ in differing):
        lines.append([("the recipes are the same", "dim")])
    words = "  ".join(f"{name} {texts[0]}" for name, _, texts in same)
    lines += [[(fit(f"the same in all: {words}", width - 2, ascii_only).rstrip(), "dim")]] if same else []
    told = [f"run {run_id} is {doubtful(some)}" for run_id, some in zip(ids, doubts, strict=True) if some]
    return [*lines, *(line for text in told for line in wrapped(text, width - 2, "warn"))]


def _cells(name: str, values: Sequence[object], doubts: Sequence[Sequence[str]]) -> list[str]:
    """The values of all runs as text; scores that are doubtful are marked."""
    texts = [_shown(value, name) for value in values]
    return [doubted(text, some) for text, some in zip(texts, doubts, strict=True)] if name == "miou" else texts


def _reasons(home: Home, ids: Sequence[str], ascii_only: bool, width: int, height: int) -> list[Line]:
    """What may explain the difference, ranked."""
    first = f" to run {ids[0]}" if len(ids) > 2 else ""
    lines: list[Line] = [[(f"why, most telling first{first}", "title")]]
    found = [reason for reason in comparing.reasons(home, ids) if reason.area != "outcome"]
    if not found:
        return [*lines, [("nothing that is recorded differs: chance on the device, or a foreign trainer", "dim")]]
    rows = [
        (
            f"{number}. {reason.area} {_short(reason.area, reason.name)}",
            [_shown(v, reason.name) for v in reason.values],
            "",
        )
        for number, reason in enumerate(found, 1)
    ]
    return [*lines, *_grid(ids, rows, width - 2, ascii_only)]


def _short(area: str, name: str) -> str:
    return "" if area == name else name.removeprefix(f"{area}.")


def _code(home: Home, ids: Sequence[str], alone: bool, ascii_only: bool, width: int, height: int) -> list[Line]:
    """Lines of the engine that differ between the first run's frozen copy and those of the others."""
    lines: list[Line] = [[("code", "title"), ("  engine frozen with each run", "dim")]]
    digests = {run_id: str(runs.get_run(home, run_id).code.get("digest") or "") for run_id in ids}
    others = [run_id for run_id in ids[1:] if digests[run_id] != digests[ids[0]]]
    if not others:
        return [*lines, [("the same in all", "dim")]]
    for run_id in others:
        found = code.changes(home, digests[ids[0]], digests[run_id])
        pair = f"run {ids[0]} to run {run_id}: "
        if found is None:
            lines.append([(f"{pair}a frozen copy is gone", "warn")])
            continue
        count = f"{len(found)} files" if len(found) != 1 else "1 file"
        lines.append([(f"{pair}{count}", "")])
        for change in found:
            lines.append(
                [(f"  {printable(change.path)} ", ""), (f"+{change.added}", "good"), (f" -{change.removed}", "red")]
            )
            shown = change.lines if alone else change.lines[:SHOWN_LINES]
            for text in shown:
                style = {"+": "good", "-": "red"}.get(text[:1], "dim")
                lines.append([(f"    {fit(text, max(width - 6, 8), ascii_only).rstrip()}", style)])
            if len(shown) < len(change.lines):
                lines.append([(f"    and {len(change.lines) - len(shown)} more lines: m, then enter", "dim")])
    return lines


def _classes(home: Home, ids: Sequence[str], ascii_only: bool, width: int, height: int) -> list[Line]:
    """Each class in every run, and the difference of the last to the first; what differs most comes first."""
    lines: list[Line] = [[("classes, IoU %", "title"), ("  largest difference first", "dim")]]
    tables = [runs.class_table(home, run_id) for run_id in ids]
    found = [one for one in tables if one is not None]
    if not found:
        return [*lines, [("no evaluation yet", "dim")]]
    shares = [{} if one is None else {row.name: row.iou for row in one.classes} for one in tables]
    means = [None if one is None else one.miou for one in tables]
    names = dict.fromkeys(row.name for one in found for row in one.classes)
    letters = {row.name: glyph_of(row.index) for one in found for row in one.classes}
    listed = [(name, [share.get(name) for share in shares]) for name in names]
    listed.sort(key=lambda item: -_spread(item[1]))
    name, texts, style = _class_row("mean", means)
    doubts = [() if one is None else one.doubts for one in tables]
    rows: list[tuple[str, Sequence[str], str]] = [(name, [*map(doubted, texts, doubts), *texts[len(ids) :]], style)]
    rows += [_class_row(f"{letters[name]} {printable(name)}", values) for name, values in listed]
    further = "max-min" if len(ids) > 2 else "diff"
    return [*lines, *_grid(ids, rows, width - 2, ascii_only, further, right=True)]


def _spread(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) > 1 else -1.0


def _class_row(name: str, values: Sequence[float | None]) -> tuple[str, Sequence[str], str]:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        difference = "-"
    elif len(values) > 2:
        difference = f"{100 * (max(known) - min(known)):.1f}"
    else:
        difference = f"{100 * (known[1] - known[0]):+.1f}"
    return name, [*("-" if value is None else f"{100 * value:.1f}" for value in values), difference], ""


def _shown(value: object, name: str = "") -> str:
    if value is None:
        return "-"
    if not isinstance(value, int | float):
        return printable(str(value))
    if name == "took":
        return duration(value)
    if name == "miou":
        return fixed(value, 2)
    return number(value, 5) if isinstance(value, float) else str(value)
