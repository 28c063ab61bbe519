"""Has anything changed? One kept connection, one pragma a look. And all that one picture shows, of one moment."""

from __future__ import annotations

from contextlib import AbstractContextManager

from mmtui.errors import UnreachableError
from mmtui.paths import Home, identity_of
from mmtui.store import session
from mmtui.store.reader import Reader
from mmtui.store.schema import HEAD, schema_revision


class Changes:
    """Tells whether another process has committed since the last look, or replaced the database."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._reader = Reader(home)
        self._file: tuple[int, int] | None = None
        self._version: tuple[object, int] | None = None

    def seen(self) -> bool:
        """True the first time, and whenever there is something new."""
        file = identity_of(self.home.database)
        if file != self._file:  # brought back from a backup, or made anew: the kept connection is to what lay there
            self._reader.close()
            self._file = file
        version = (file, self._reader.data_version())
        changed = version != self._version
        self._version = version
        return changed

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()


def one_moment(home: Home) -> AbstractContextManager[object]:
    """Within this block all that services read in this thread is of one moment, in one transaction.

    For one refresh of a screen: after ``Changes.seen``, so that what is committed meanwhile is either read or seen at
    the next look, and never longer, since a transaction that stays open keeps the database's log from being emptied.
    """
    return session.snapshot(home)


def is_current(home: Home) -> bool:
    """Whether there is a database of this version: reading another one upgrades it first."""
    try:
        return schema_revision(home.database) == HEAD
    except UnreachableError:
        return False  # whoever reads it says why
