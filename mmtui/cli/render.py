"""stdout: tables, JSON and lines. The only place that prints."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from mmtui.domain.look import COLORS, glyph
from mmtui.domain.text import duration, printable, shorten
from mmtui.domain.views import ClassTable, RunRow

SCHEMA_VERSION = 1
_ANSI = {"bright_black": 90, "red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36}
_color_mode = "auto"


def set_color(mode: str) -> None:
    """``auto`` (a terminal, unless NO_COLOR or TERM=dumb), ``always`` or ``never``."""
    global _color_mode  # noqa: PLW0603  (one setting of one process, given on its command line)
    _color_mode = mode


def use_color() -> bool:
    """Whether escape codes may be written."""
    if _color_mode != "auto":
        return _color_mode == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty()


def ascii_only() -> bool:
    """Whether stdout cannot take more than ASCII."""
    return "utf" not in (sys.stdout.encoding or "").lower()


def line(text: str = "") -> None:
    """One line of data."""
    if ascii_only():
        text = text.encode("ascii", "replace").decode()
    print(text, flush=True)


def document(body: dict[str, Any]) -> None:
    """One JSON document with its schema version; NaN and infinities become null."""
    print(json.dumps(clean({"schema_version": SCHEMA_VERSION, **body}), ensure_ascii=False, indent=2), flush=True)


def clean(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value


def paint(text: str, color: str) -> str:
    """The text in one of 16 colours, where colours are used."""
    return f"\x1b[{_ANSI[color]}m{text}\x1b[0m" if color in _ANSI and use_color() else text


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Aligned columns; those whose numbers are in ``right`` are flush right."""
    body = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *body]) for i in range(len(header))]
    line(_aligned(header, widths, right))
    for row in body:
        line(_aligned(row, widths, right))


def _aligned(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    padded = [
        cell.rjust(width) if index in right else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def number(value: float | None, digits: int = 4) -> str:
    """A number for people, ``-`` where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """A share 0-1 as percent with one decimal."""
    return "-" if share is None else f"{100 * share:.1f}"


def runs_table(rows: Sequence[RunRow], now: float) -> None:
    """The table of ``mmtui ls``."""
    narrow = ascii_only()
    header = ("id", "state", "name", "stage", "done", "loss", "mIoU", "age", "reason")
    body = []
    for row in rows:
        body.append(
            (
                row.id,
                f"{glyph(row.state, narrow)} {row.state}",
                shorten(printable(row.name), 32),
                row.stage or "-",
                f"{100 * row.progress:.0f}%",
                number(row.metrics.get("loss")),
                number(row.metrics.get("miou"), 3),
                duration(now - row.created_at),
                shorten(printable(row.reason), 70),
            )
        )
    widths = [max(len(cells[i]) for cells in [header, *body]) for i in range(len(header))]
    line(_aligned(header, widths, (0, 4, 5, 6, 7)))
    for row, cells in zip(rows, body, strict=True):
        text = _aligned(cells, widths, (0, 4, 5, 6, 7))
        start, stop = widths[0] + 2, widths[0] + 2 + widths[1]
        line(text[:start] + paint(text[start:stop], COLORS.get(row.state, "")) + text[stop:])


def bar(share: float | None, width: int = 20) -> str:
    """A share 0-1 as a bar."""
    filled = 0 if share is None else round(share * width)
    full, empty = ("#", ".") if ascii_only() else ("█", "░")
    return full * filled + empty * (width - filled)


def class_table(found: ClassTable) -> None:
    """Per-class IoU of one run."""
    rows = [
        (str(c.index), c.name, percent(c.iou), bar(c.iou), percent(c.accuracy), str(c.pixels)) for c in found.classes
    ]
    table(("", "class", "IoU %", "", "acc %", "pixels"), rows, right=(0, 2, 4, 5))
    present = f"{found.num_present}/{len(found.classes)} classes"
    line(f"mIoU {percent(found.miou)} over {present} ({found.stage} step {found.step})")


def class_comparison(names: Sequence[str], tables: Sequence[ClassTable]) -> None:
    """Per-class IoU of two runs side by side, with the difference of the second to the first."""
    first, second = tables
    other = {c.name: c for c in second.classes}
    rows = []
    for c in first.classes:
        against = other[c.name].iou if c.name in other else None
        rows.append((c.name, percent(c.iou), percent(against), _difference(c.iou, against), str(c.pixels)))
    rows.append(("mean IoU", percent(first.miou), percent(second.miou), _difference(first.miou, second.miou), ""))
    table(("class (IoU %)", *names, "difference", "pixels"), rows, right=(1, 2, 3, 4))


def _difference(before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else f"{100 * (after - before):+.1f}"
