"""Points of metrics at a moment: one look in the primary key for each metric, however many points it has."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from mmtui.domain.views import Point
from mmtui.store import cells
from mmtui.store.filters import KEPT
from mmtui.store.reader import Reader

LAST_STEP = 2**62
_AT_ONCE = 100
"""SQLite takes 500 parts of a statement."""
_LAST = (
    "SELECT * FROM (SELECT name, step, value, t, attempt, stage, global_step FROM metrics m WHERE run_id = ?"
    f" AND name = ? AND global_step <= ?{{}} AND {KEPT.format(t='m')} ORDER BY global_step DESC, attempt DESC LIMIT 1)"
)


def points_at(reader: Reader, run_id: int, names: Sequence[str], step: int) -> dict[str, Point]:
    """The last point of each metric up to a global step, of those that have one."""
    found = {name: cells.point(row[1:]) for name, row in _newest(reader, run_id, names, step, " AND value IS NOT NULL")}
    return {name: point for name, point in found.items() if point is not None}


def time_at(reader: Reader, run_id: int, names: Sequence[str], step: int) -> float | None:
    """Unix time at which a run had done a global step: of what was told last up to it; None before anything was."""
    sql = f"SELECT max(t) FROM events e WHERE run_id = ? AND global_step <= ? AND {KEPT.format(t='e')}"
    told = [row[0] for row in reader.query(sql, [run_id, min(step, LAST_STEP)])]
    logged = [row[3] for _, row in _newest(reader, run_id, names, step, "")]
    return max((t for t in map(cells.moment, (*logged, *told)) if t is not None), default=None)


def _newest(
    reader: Reader, run_id: int, names: Sequence[str], step: int, condition: str
) -> Iterator[tuple[str, sqlite3.Row]]:
    for first in range(0, len(names), _AT_ONCE):
        some = names[first : first + _AT_ONCE]
        sql = " UNION ALL ".join([_LAST.format(condition)] * len(some))
        asked = [value for name in some for value in (run_id, name, min(step, LAST_STEP))]
        yield from ((row[0], row) for row in reader.query(sql, asked))
