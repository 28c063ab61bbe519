"""What a shell completes: no ``Reader``, whose loading would take longer than the question."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from mmtui.store.schema import open_to_read


class Candidate(NamedTuple):
    """A run that a beginning of an id may mean."""

    run_id: str
    name: str
    state: str


def begin_with(database: Path, prefix: str, most: int) -> list[Candidate]:
    """The newest listed runs whose id begins so; none where the database cannot be read."""
    sql = "SELECT id, name, state FROM runs WHERE deleted_at IS NULL AND substr(id, 1, ?) = ? ORDER BY id DESC LIMIT ?"
    try:
        with closing(open_to_read(database)) as connection:
            rows = connection.execute(sql, (len(prefix), prefix, most)).fetchall()
    except sqlite3.Error:
        return []
    return [Candidate(str(number), str(name), str(state)) for number, name, state in rows]


def keeps_best(database: Path, run_id: str) -> bool:
    """Whether a run has told of a best checkpoint; not where the database cannot be read."""
    sql = "SELECT 1 FROM events e JOIN runs r ON r.id = e.run_id WHERE e.run_id = ? AND e.kind = 'best' LIMIT 1"
    try:
        with closing(open_to_read(database)) as connection:
            return bool(run_id.isdecimal() and connection.execute(sql, (int(run_id),)).fetchone())
    except (sqlite3.Error, OverflowError):
        return False
