"""Has anything changed? One kept connection, one pragma a look."""

from __future__ import annotations

from mmtui.errors import UnreachableError
from mmtui.paths import Home
from mmtui.store.reader import Reader
from mmtui.store.schema import HEAD, schema_revision


class Changes:
    """Tells whether another process has committed since the last look."""

    def __init__(self, home: Home) -> None:
        self._reader = Reader(home)
        self._version: int | None = None

    def seen(self) -> bool:
        """True the first time, and whenever there is something new."""
        version = self._reader.data_version()
        changed = version != self._version
        self._version = version
        return changed

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()


def is_current(home: Home) -> bool:
    """Whether there is a database of this version: reading another one upgrades it first."""
    try:
        return schema_revision(home.database) == HEAD
    except UnreachableError:
        return False  # whoever reads it says why
