"""One small write without SQLAlchemy, which takes most of a second to import: too long for a screen that starts."""

from __future__ import annotations

import sqlite3
from urllib.parse import quote

from mmtui.errors import UnreachableError
from mmtui.paths import Home
from mmtui.store.schema import HEAD, schema_revision

PATIENCE_SECONDS = 5.0


def put_setting(home: Home, key: str, value: str) -> None:
    """Keep a setting of the queue. A directory without a database, or with one of another version, is left alone.

    Raises:
        UnreachableError: the database is locked or cannot be written.
    """
    if schema_revision(home.database) != HEAD:
        return
    uri = f"file:{quote(bytes(home.database))}?mode=rw"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=PATIENCE_SECONDS, isolation_level=None)
        try:
            # The supervisor alone checkpoints (see mmtui.store.db).
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)", [key, value])
            connection.execute("COMMIT")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise UnreachableError(f"the database {home.database} cannot be written: {error}") from None
