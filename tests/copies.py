"""Many runs in no time: copies of one that a data directory holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from mmtui.paths import Home


def copy_run(home: Home, run_id: int, count: int) -> None:
    """Add copies of a run's row, which have no folders."""
    with closing(sqlite3.connect(home.database)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)") if row[1] != "id"]
        names = ", ".join(f'"{name}"' for name in columns)
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        connection.execute(
            f"INSERT INTO runs ({names}) {numbers} SELECT {names} FROM runs, n WHERE id = ?", [count, run_id]
        )
