"""Which schema a database file has. Plain sqlite3: readers need it too, and they must not load SQLAlchemy."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from mmtui.access import remedy
from mmtui.errors import UnreachableError
from mmtui.paths import Home, size_of

HEAD = "0006"
"""Newest migration; revisions are four digits and sort as text."""


def open_to_read(database: Path, timeout: float = 10, *, check_same_thread: bool = True) -> sqlite3.Connection:
    """A connection that cannot write, also where nothing can be written: on a medium or a home that is read-only.

    A database with a write-ahead log needs a place for locks beside it. Without one it is read as it lies there, or, if
    the log holds something that is not in the database yet, a copy of both is.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    place = f"file:{_quoted(str(database))}?mode=ro"
    connection = sqlite3.connect(place, uri=True, timeout=timeout, check_same_thread=check_same_thread)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError:
        connection.close()
        writable = os.access(database.parent, os.W_OK) and not is_full(database.parent)
        if writable or not os.access(database, os.R_OK):
            raise
    except BaseException:
        connection.close()
        raise
    log = Path(f"{database}-wal")
    if size_of(log):
        return _copied(database, log, check_same_thread)
    return sqlite3.connect(f"{place}&immutable=1", uri=True, check_same_thread=check_same_thread)


def is_full(folder: Path) -> bool:
    """Whether there is no room for the index of a log, which SQLite makes where nobody has the database open."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return False  # it is gone, which is another fault
    return status.f_bavail * status.f_frsize < _INDEX_BYTES


def _quoted(text: str) -> str:
    """The path as a URI has it. Loading what quotes takes as long as completing a word may take."""
    if not re.search(r"[^\w./-]", text, re.ASCII):
        return text
    from urllib.parse import quote

    return quote(os.fsencode(text))  # a name need not be UTF-8


def _copied(database: Path, log: Path, check_same_thread: bool) -> sqlite3.Connection:
    """A copy of a database with what its log holds; its files are gone when the connection is."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory(prefix="mmtui-") as folder:
        copy = Path(folder) / database.name
        shutil.copyfile(database, copy)
        shutil.copyfile(log, f"{copy}-wal")
        connection = sqlite3.connect(copy, check_same_thread=check_same_thread)
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA query_only=ON")
    return connection


def schema_revision(database: Path) -> str | None:
    """Migration a database is at, None if there is no database or it is empty.

    Raises:
        UnreachableError: it cannot be read, or is another program's.
    """
    opened = open_at_revision(database)
    if opened is None:
        return None
    connection, revision = opened
    connection.close()
    return revision


def open_at_revision(
    database: Path, *, begin: bool = False, check_same_thread: bool = True
) -> tuple[sqlite3.Connection, str | None] | None:
    """A connection that cannot write, and the migration the database is at (None: none yet); None without a database.

    Args:
        begin: begin a read transaction: all that the connection reads, the migration included, is of one moment.

    Raises:
        UnreachableError: it cannot be read, or is another program's.
    """
    if not size_of(database):
        return None
    try:
        connection = open_to_read(database, check_same_thread=check_same_thread)
        try:
            if begin:
                connection.execute("BEGIN")
            return connection, _revision(connection, database)
        except BaseException:
            connection.close()
            raise
    except sqlite3.OperationalError as error:
        closed = remedy(database, writing=False)
        raise UnreachableError(f"the database {database} cannot be read: {error}", closed) from None
    except sqlite3.DatabaseError as error:
        raise UnreachableError(f"{database} is damaged: {error}", "mmtui doctor --fix, or restore a backup") from None


def _revision(connection: sqlite3.Connection, database: Path) -> str | None:
    try:
        row, tables = connection.execute(_REVISION).fetchone(), frozenset({_REVISIONS})
    except sqlite3.OperationalError:
        tables = frozenset(row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
        if _REVISIONS in tables:
            raise
        row = None
    if (tables and _REVISIONS not in tables) or (row and not re.fullmatch("[0-9]{4}", str(row[0]))):
        raise UnreachableError(
            f"{database} is a database of another program", "move it away, or set MMTUI_HOME to another directory"
        )
    return None if row is None else str(row[0])


def lost(home: Home) -> str:
    """That the database is gone, in a sentence, where folders of runs speak of one; "" where there never was one."""
    if size_of(home.database):
        return ""
    folders = 0
    for folder in (home.runs, home.trash):
        with suppress(OSError):
            folders += sum(entry.name.isdecimal() and (entry / "run.json").exists() for entry in folder.iterdir())
    return f"the database {home.database} is gone, but folders of runs are there ({folders})" if folders else ""


def refuse_lost(home: Home) -> None:
    """Whoever asks must not be told that there are no runs, and nothing new may take the place of what was there.

    Raises:
        UnreachableError: the database is gone, and folders of runs are there.
    """
    sentence = lost(home)
    if sentence:
        backup = "; from a backup: mmtui backup --restore FILE" if any(home.backups.glob("*.db")) else ""
        raise UnreachableError(sentence, f"to make it again from them: mmtui doctor --fix{backup}")


FILE_ERRORS = (OSError, sqlite3.Error)
"""What copying or reading a file of a database may raise."""
_INDEX_BYTES = 1 << 16
_REVISIONS = "alembic_version"
_REVISION = f"SELECT version_num FROM {_REVISIONS}"


def sqlite_version() -> tuple[str, tuple[int, int, int]]:
    """The version of SQLite that is in use, as text and as numbers."""
    return sqlite3.sqlite_version, sqlite3.sqlite_version_info


def damage(database: Path) -> str:
    """What proves that a database is damaged, in SQLite's words; "" where nothing does.

    One that is locked, newer, another program's or out of reach is not damaged.
    """
    try:
        with closing(open_to_read(database)) as connection:
            found = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.OperationalError:
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if found == "ok" else found
