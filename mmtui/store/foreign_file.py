"""SQLite files that other programs made."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def tables_of(file: Path) -> set[str]:
    """Names of its tables; none where it cannot be read as a database. ``file`` must be an absolute path."""
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return set()
