"""Which schema a database file has. Plain sqlite3: readers need it too, and they must not load SQLAlchemy."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from mmtui.errors import UnreachableError

HEAD = "0005"
"""Newest migration; revisions are four digits and sort as text."""


def schema_revision(database: Path) -> str | None:
    """Migration a database is at, None if there is no database or it is empty."""
    if not database.exists() or database.stat().st_size == 0:
        return None
    try:
        connection = sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True, timeout=10)
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise UnreachableError(f"the database {database} cannot be read: {error}") from None
    except sqlite3.DatabaseError as error:
        raise UnreachableError(
            f"{database} is not a readable database: {error}", "run mmtui doctor, or restore a backup"
        ) from None
    return None if row is None else str(row[0])
