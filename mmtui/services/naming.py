"""Runs by the beginning of their id, for shells that complete: nothing is loaded but sqlite3."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from mmtui.paths import Home
from mmtui.store.schema import open_to_read


def begin_with(home: Home, prefix: str, most: int) -> list[tuple[str, str, str]]:
    """(id, name, state) of the newest runs whose id begins so; none where the database cannot be read."""
    sql = "SELECT id, name, state FROM runs WHERE deleted_at IS NULL AND substr(id, 1, ?) = ? ORDER BY id DESC LIMIT ?"
    try:
        with closing(open_to_read(home.database)) as connection:
            rows = connection.execute(sql, (len(prefix), prefix, most)).fetchall()
    except sqlite3.Error:
        return []
    return [(str(number), str(name), str(state)) for number, name, state in rows]


def keeps_best(home: Home, run_id: str) -> bool:
    """Whether a run has told of a best checkpoint; not where the database cannot be read."""
    sql = "SELECT 1 FROM events e JOIN runs r ON r.id = e.run_id WHERE e.run_id = ? AND e.kind = 'best' LIMIT 1"
    try:
        with closing(open_to_read(home.database)) as connection:
            return bool(run_id.isdecimal() and connection.execute(sql, (int(run_id),)).fetchone())
    except (sqlite3.Error, OverflowError):
        return False
