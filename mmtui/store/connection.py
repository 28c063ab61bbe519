"""One read-only sqlite3 connection, opened when it is first needed. SQLAlchemy would slow the start of ``mmtui ls``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from mmtui.access import remedy
from mmtui.domain.text import stored_text
from mmtui.errors import UnreachableError
from mmtui.paths import Home
from mmtui.store import filters
from mmtui.store.interrupts import interruptible
from mmtui.store.schema import HEAD, open_at_revision, refuse_lost

Key = tuple[str, tuple[tuple[type, object], ...]]

_MOST_KEPT = 200
"""Rows of an answer that a moment remembers: what is longer is read in portions, which nobody asks for twice."""


class Connection:
    """A read-only connection to the database of one data directory. A directory without one has no rows.

    Not safe to share between threads at the same moment.

    Args:
        home: the data directory.
        one_moment: all is read in one transaction, which begins with the first query and ends with ``close``. What was
            asked once is not asked again, unless its answer was long. A database that appears meanwhile is of a later
            moment: there is none.

    Raises:
        UnreachableError: the database is damaged or of another version.
    """

    def __init__(self, home: Home, *, one_moment: bool = False) -> None:
        self.home = home
        self._connection: sqlite3.Connection | None = None
        self._one_moment, self._absent, self._over = one_moment, False, False
        self._answers: dict[Key, list[sqlite3.Row]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and with it the transaction."""
        if self._connection is not None:
            if self._connection.in_transaction:
                self._connection.rollback()
            self._connection.close()
            self._connection = None
        self._answers.clear()
        self._over = self._one_moment

    def connection(self) -> sqlite3.Connection | None:
        """The connection, None while there is no database."""
        assert not self._over, "the moment is over: what reads on behind it would leave a transaction open"
        if self._connection is None and not self._absent:
            self._connection = self._opened()
            self._absent = self._one_moment and self._connection is None
        return self._connection

    def _opened(self) -> sqlite3.Connection | None:
        connection, revision = self._open() or (None, None)
        if connection is not None and revision not in (None, HEAD):
            connection.close()
            # SQLAlchemy is loaded for the one command after an upgrade of mmtui.
            from mmtui.store.db import prepare

            prepare(self.home)
            connection, revision = self._open() or (None, None)
        if connection is None or revision is None:
            if connection is not None:
                connection.close()
            refuse_lost(self.home)
            return None
        connection.row_factory = sqlite3.Row
        filters.add_functions(connection)
        return connection

    def _open(self) -> tuple[sqlite3.Connection, str | None] | None:
        return open_at_revision(self.home.database, begin=self._one_moment, check_same_thread=False)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        """All rows of a query; none while there is no database."""
        if not self._one_moment:
            return self._rows(sql, parameters)
        key = (sql, tuple((type(one), one) for one in parameters))
        if key in self._answers:
            return list(self._answers[key])
        rows = self._rows(sql, parameters)
        if len(rows) <= _MOST_KEPT:
            self._answers[key] = rows
        return list(rows)

    def _rows(self, sql: str, parameters: Sequence[object]) -> list[sqlite3.Row]:
        connection = self.connection()
        if connection is None:
            return []
        self._refuse_another_moment(connection)
        with translated(self.home):
            try:
                return connection.execute(sql, parameters).fetchall()
            except sqlite3.OperationalError as error:
                if "decode to UTF-8" not in str(error) or connection.text_factory is stored_text:
                    raise
            # One such cell must not hide the others. Decoding every cell in Python would slow all queries down.
            connection.text_factory = stored_text
            return connection.execute(sql, parameters).fetchall()

    def _refuse_another_moment(self, connection: sqlite3.Connection) -> None:
        """A query that failed has read nothing and harms no other, but SQLite ends the transaction where memory or the
        disk failed it."""
        if self._one_moment and not connection.in_transaction:
            raise UnreachableError(
                f"the database {self.home.database} cannot be read: memory or the disk failed an earlier query",
                "look again; if it stays so, run mmtui doctor",
            )

    def search(self, sql: str, parameters: Sequence[object]) -> list[sqlite3.Row]:
        """All rows of a query with a user's patterns in it: one can keep Python busy for years, until ctrl-C."""
        connection = self.connection()
        if connection is None:
            return []
        with interruptible(connection):
            return self.query(sql, parameters)

    def stream(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[sqlite3.Row]:
        """The rows of a query one by one, all as of the moment of the first; none while there is no database."""
        connection = self.connection()
        if connection is not None:
            self._refuse_another_moment(connection)
            connection.text_factory = stored_text  # a stream that has begun cannot be read anew, as ``query`` does
            with translated(self.home):
                yield from connection.execute(sql, parameters)

    def data_version(self) -> int:
        """A number that changes whenever another connection has committed."""
        rows = self._rows("PRAGMA data_version", ())
        return int(rows[0][0]) if rows else 0


@contextmanager
def translated(home: Home) -> Iterator[None]:
    """Errors of SQLite as sentences that name the database and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise UnreachableError(
            f"the database {home.database} cannot be read: {error}",
            remedy(home.database, writing=False) or "run mmtui doctor, or restore a backup",
        ) from None
