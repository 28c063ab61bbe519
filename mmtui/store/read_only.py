"""Queries that others wrote: an authoriser lets them read and nothing else, and limits bound what they may need.

A connection in mode ``ro`` is not enough: it writes no table of its own database, but ``VACUUM INTO`` and ``ATTACH``
write other files, and a sort without end fills the disk with temporary ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mmtui.domain.text import stored_text
from mmtui.errors import UnreachableError, UsageError
from mmtui.store.interrupts import interruptible

LONGEST_VALUE = 32 * 2**20
"""Bytes of one value, and of one row. A confusion matrix of 1,000 classes has 8 MB."""
MOST_MEMORY = 2**30
"""Bytes that SQLite may claim in this process, for sorting and grouping, too: nothing is written to temporary files."""
OPERATIONS = 20_000
"""Steps of SQLite's virtual machine between two looks for ctrl-C: a few milliseconds."""
ALLOWED = "a query may read and nothing else: give one SELECT, WITH, VALUES or EXPLAIN, or PRAGMA table_info(runs)"

_DESCRIBING = frozenset(
    {"collation_list", "compile_options", "database_list", "foreign_key_list", "function_list", "index_info"}
    | {"index_list", "index_xinfo", "module_list", "pragma_list", "table_info", "table_list", "table_xinfo"}
)
_CHECKING = frozenset({"foreign_key_check", "integrity_check", "quick_check"})
# The value of these may be asked for, but not set.
_VALUES = frozenset(
    {"application_id", "data_version", "encoding", "freelist_count", "journal_mode"}
    | {"page_count", "page_size", "schema_version", "user_version"}
)
_READING = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_OWN = "mm_"
_DIRECT_ONLY = 0x80000  # SQLITE_DIRECTONLY: SQLite itself holds such a function to be dangerous
_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY})
_SCHEMA = "change the schema"
_REFUSED = {
    sqlite3.SQLITE_ATTACH: "open or write another file",
    sqlite3.SQLITE_DETACH: "detach a database",
    sqlite3.SQLITE_INSERT: "write rows",
    sqlite3.SQLITE_UPDATE: "write rows",
    sqlite3.SQLITE_DELETE: "delete rows",
    sqlite3.SQLITE_TRANSACTION: "begin or end a transaction",
    sqlite3.SQLITE_SAVEPOINT: "begin or end a transaction",
    sqlite3.SQLITE_ANALYZE: "write statistics",
    sqlite3.SQLITE_REINDEX: "write an index",
}

Rows = Iterator[tuple[object, ...]]


@contextmanager
def reading(connection: sqlite3.Connection, text: str) -> Iterator[tuple[list[str], Rows]]:
    """Column names of one statement that only reads, and its rows as they come: one at a time is held in memory.

    Ctrl-C ends it. The connection is for such statements alone from here on. Text that is not UTF-8 is escaped.

    Raises:
        UsageError: the statement is wrong, would do more than read, or needs more than the limits; also while the
            rows are read.
        UnreachableError: the database is damaged.
    """
    refused: list[str] = []
    _limit(connection)
    connection.set_authorizer(_authorizer(connection, refused))
    connection.text_factory = stored_text
    with interruptible(connection, OPERATIONS), _told(refused):
        cursor = _begin(connection, text)
        if cursor.description is None:
            raise UsageError("the query asks for nothing", ALLOWED)
        yield [item[0] for item in cursor.description], map(tuple, cursor)


def _begin(connection: sqlite3.Connection, text: str) -> sqlite3.Cursor:
    try:
        return connection.execute(text)
    except UnicodeEncodeError:
        raise UsageError("the query is not UTF-8 text", ALLOWED) from None


def _limit(connection: sqlite3.Connection) -> None:
    """Bound what a statement may take, and make what SQLite makes on first use: afterwards it may not."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    # Half of it: what grows is held twice while it is copied.
    connection.execute(f"PRAGMA hard_heap_limit={MOST_MEMORY // 2}")
    for source in ("json_each('[]')", "json_tree('[]')", *(f"pragma_{name}" for name in _DESCRIBING)):
        with suppress(sqlite3.OperationalError):  # this SQLite may be built without it
            connection.execute(f"SELECT 1 FROM {source} LIMIT 0")


def _authorizer(connection: sqlite3.Connection, refused: list[str]) -> Callable[..., int]:
    """What SQLite asks about each part of a statement; what is refused is written down in words."""
    functions = _functions(connection)

    def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action in _READING:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            name = (second or "").lower()
            allowed, would = name in functions, f"call the function {name}"
        elif action == sqlite3.SQLITE_PRAGMA:
            allowed, would = _harmless(first or "", second), f"run PRAGMA {first}"
        else:
            schema = (first or "").lower().startswith("sqlite_")  # CREATE asks first whether it may write there
            allowed, would = False, _SCHEMA if schema else _REFUSED.get(action, _SCHEMA)
        if allowed:
            return sqlite3.SQLITE_OK
        refused.append(would)
        return sqlite3.SQLITE_DENY

    return authorize


def _functions(connection: sqlite3.Connection) -> frozenset[str]:
    """Names of the functions that may be called: ours, and those of SQLite's core that touch no file."""
    rows = connection.execute("SELECT name, builtin, flags FROM pragma_function_list").fetchall()
    dangerous = {name for name, _, flags in rows if flags & _DIRECT_ONLY}
    return frozenset(name for name, builtin, _ in rows if builtin or name.startswith(_OWN)) - dangerous


def _harmless(name: str, argument: str | None) -> bool:
    name = name.lower()
    return name in _DESCRIBING or name in _CHECKING or (name in _VALUES and argument is None)


@contextmanager
def _told(refused: list[str]) -> Iterator[None]:
    """SQLite's errors as sentences."""
    try:
        yield
    except MemoryError:
        raise UsageError(
            f"the query needs more than {MOST_MEMORY >> 30} GiB of memory",
            "sort and group less at once: choose rows with WHERE, or add LIMIT inside",
        ) from None
    except (sqlite3.Error, sqlite3.Warning) as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF in _BROKEN:
            raise UnreachableError(
                f"the database cannot be read: {error}", "run mmtui doctor, or restore a backup"
            ) from None
        if code == sqlite3.SQLITE_TOOBIG:
            raise UsageError(f"a value of the query has more than {LONGEST_VALUE >> 20} MiB", ALLOWED) from None
        if refused:
            raise UsageError(f"the query is refused: it would {refused[0]}", ALLOWED) from None
        if "one statement" in str(error):
            raise UsageError("the query is refused: it has several statements", ALLOWED) from None
        hint = "docs/schema.md has the tables and their columns" if "no such" in str(error) else ""
        raise UsageError(f"the query fails: {error}", hint) from None
