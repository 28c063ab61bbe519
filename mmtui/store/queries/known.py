"""Which runs the database knows, those in the trash included, and one thing of each."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from mmtui.store import cells

if TYPE_CHECKING:
    from pathlib import Path

    from mmtui.store.reader import Reader


def ids(reader: Reader) -> set[int]:
    """All runs."""
    return {row[0] for row in reader.query("SELECT id FROM runs")}


def names(reader: Reader) -> dict[int, str]:
    """{run: its name}."""
    return {run_id: cells.text(name) for run_id, name in reader.query("SELECT id, name FROM runs")}


def states(reader: Reader) -> dict[int, str]:
    """{run: its state, as it is stored}."""
    return {row[0]: row[1] for row in reader.query("SELECT id, state FROM runs")}


def reasons(reader: Reader) -> dict[int, str]:
    """{run: why it is in its state}."""
    return {run_id: cells.text(reason) for run_id, reason in reader.query("SELECT id, reason FROM runs")}


def is_known(reader: Reader, run_id: int) -> bool:
    """Whether there is such a run."""
    return bool(reader.query("SELECT 1 FROM runs WHERE id = ?", [run_id]))


def last_id(reader: Reader) -> int:
    """The largest id that a run ever had; 0 before the first."""
    rows = reader.query("SELECT seq FROM sqlite_sequence WHERE name = 'runs'")
    return int(rows[0][0]) if rows else 0


def has_other_reason(reader: Reader, run_id: int, text: str) -> bool:
    """Whether there is such a run and its reason is not this one."""
    return bool(reader.query("SELECT 1 FROM runs WHERE id = ? AND reason != ?", [run_id, text]))


def ids_in(file: Path) -> frozenset[int]:
    """All runs of a database that is not in use.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    with closing(sqlite3.connect(file)) as connection:
        return frozenset(int(row[0]) for row in connection.execute("SELECT id FROM runs"))
