"""The write-ahead log of a database that is not in use."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path


def empty(database: Path) -> None:
    """Move what the log holds into the database, as far as that is possible."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
