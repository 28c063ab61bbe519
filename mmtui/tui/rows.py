"""The lines of the table of runs: a run, or several folded into one. Read in the feed's thread."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mmtui.domain.filters import is_score
from mmtui.domain.text import printable
from mmtui.domain.views import RunRow, doubted
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.grouping import Folds, Group, grouped
from mmtui.tui.model import TableRow, Wanted

WINDOW = 200
"""Lines held at a time; the table is a window over all of them."""
SHARE_OF_A_CORE = 0.02
"""Folding reads every run: done again only after so long that it takes no more of a core than this."""


SORTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("newest first", ()),
    ("best mIoU first", ("-miou",)),
    ("least loss first", ("loss",)),
    ("by name", ("name",)),
    ("by state", ("state",)),
    ("oldest first", ("created",)),
)
"""Orders that have words of their own."""


def sort_words(sort: tuple[str, ...]) -> str:
    """An order in words."""
    return {keys: text for text, keys in SORTS}.get(sort, f"by {', '.join(sort)}")


class Rows:
    """Reads windows of lines."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._folds = Folds(home)
        self._kept: tuple[object, float, list[Group | RunRow]] = (None, 0.0, [])

    def window(self, wanted: Wanted, pinned: Sequence[str]) -> tuple[tuple[TableRow, ...], int]:
        """The lines from ``wanted.offset`` on, and how many there are."""
        sort = (*(("-pinned",) if pinned else ()), *wanted.sort)
        if wanted.group:
            return self._folded(wanted, sort)
        if not (wanted.filter or sort or wanted.columns):
            found = runs.list_runs(self.home, limit=WINDOW, offset=wanted.offset)
            return tuple(TableRow(row.id, row) for row in found), sum(runs.count_runs(self.home).values())
        several, total = runs.find(
            self.home, wanted.filter, sort=sort, columns=wanted.columns, limit=WINDOW, offset=wanted.offset
        )
        return tuple(TableRow(row.id, row, cells=_texts(row, wanted.columns, values)) for row, values in several), total

    def _folded(self, wanted: Wanted, sort: Sequence[str]) -> tuple[tuple[TableRow, ...], int]:
        lines: list[tuple[Group | RunRow, int]] = []
        for one in self._groups(wanted, sort):
            lines.append((one, 0))
            if isinstance(one, Group) and one.id in wanted.opened:
                lines += [(row, 1) for row in one.rows]
        shown = lines[wanted.offset : wanted.offset + WINDOW]
        cells = self._cells([one for one, _ in shown if isinstance(one, RunRow)], wanted.columns)
        rows = (
            TableRow(one.id, one.rows[0], one)
            if isinstance(one, Group)
            else TableRow(one.id, one, None, depth, cells.get(one.id, ()))
            for one, depth in shown
        )
        return tuple(rows), len(lines)

    def _groups(self, wanted: Wanted, sort: Sequence[str]) -> list[Group | RunRow]:
        asked = (wanted.filter, wanted.group, tuple(sort))
        before, again_at, kept = self._kept
        began = time.monotonic()
        if asked != before or began >= again_at:
            kept = grouped(self.home, wanted.filter, wanted.group, sort, self._folds)
            taken = time.monotonic() - began
            self._kept = (asked, began + taken / SHARE_OF_A_CORE, kept)
        return kept

    def _cells(self, rows: Sequence[RunRow], columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
        if not rows or not columns:
            return {}
        found = runs.values(self.home, [row.id for row in rows], columns)
        return {row.id: _texts(row, columns, found[row.id]) for row in rows if row.id in found}


def _texts(row: RunRow, columns: Sequence[str], values: Sequence[object]) -> tuple[str, ...]:
    """Values of chosen columns; scores that are doubtful are marked."""
    pairs = zip(columns, map(_text, values), strict=True)
    return tuple(doubted(text, row.doubts) if is_score(name) else text for name, text in pairs)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
