"""Whether a database has every table, column and index of its schema. Loads SQLAlchemy: not for quick reading."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateColumn

from mmtui.access import remedy
from mmtui.errors import UnreachableError
from mmtui.paths import Home
from mmtui.store.db import Database
from mmtui.store.schema import HEAD, open_to_read, schema_revision
from mmtui.store.tables import metadata

_ADDABLE = frozenset({"table wishes", "table settings", "table needs", "table device_samples", "table transitions"})
_NOTE = "column note of runs"
_FEW = 5


@dataclass(frozen=True)
class Lack:
    """Something of the schema that is not there; ``kind``: table, column or index."""

    kind: str
    name: str
    table: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f" of {self.table}" if self.kind == "column" else "")

    @property
    def can_be_added(self) -> bool:
        """Whether it can be made again, empty, while everything else stays: it says nothing that a run is started by,
        and making every run again from its folder would not bring it back."""
        return self.kind == "index" or str(self) in (*_ADDABLE, _NOTE)


def lacking(database: Path) -> list[Lack]:
    """What a database of this schema lacks; nothing where there is none, or one of another schema.

    Raises:
        UnreachableError: it cannot be read.
    """
    if schema_revision(database) != HEAD:
        return []
    try:
        with closing(open_to_read(database)) as connection:
            rows = connection.execute(
                "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'index')"
            ).fetchall()
            there = {kind: {name for found, name in rows if found == kind} for kind in ("table", "index")}
            columns = {
                table: {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')}
                for table in metadata.tables
            }
    except sqlite3.Error as error:
        closed = remedy(database, writing=False)
        raise UnreachableError(f"the database {database} cannot be read: {error}", closed) from None
    return _compared(there, columns)


def _compared(there: dict[str, set[str]], columns: dict[str, set[str]]) -> list[Lack]:
    found = list[Lack]()
    for name, table in sorted(metadata.tables.items()):
        if name not in there["table"]:
            found.append(Lack("table", name, name))
            continue
        found += [Lack("column", one.name, name) for one in table.columns if one.name not in columns[name]]
        indexes = sorted(str(index.name) for index in table.indexes)
        found += [Lack("index", index, name) for index in indexes if index not in there["index"]]
    return found


def sentence(database: Path, found: Sequence[Lack]) -> str:
    """What it lacks, in words; "" if nothing."""
    if not found:
        return ""
    shown = ", ".join(f"no {one}" for one in found[:_FEW]) + (", ..." if len(found) > _FEW else "")
    return f"the database {database} is not whole: it has {shown}"


def refuse_incomplete(home: Home) -> None:
    """Nobody is served from a database of which a part is missing: each round would fail anew.

    Raises:
        UnreachableError: something is missing; it is named.
    """
    told = sentence(home.database, lacking(home.database))
    if told:
        raise UnreachableError(told, "mend it: mmtui doctor --fix, or take a backup: mmtui backup --restore FILE")


def add(home: Home, found: Collection[Lack]) -> None:
    """Make what ``can_be_added``, in one transaction; nothing that is there changes.

    Raises:
        UnreachableError: the database cannot be written.
    """
    database = Database(home)
    try:
        with database.write(durable=True) as session:
            connection = session.connection()
            for one in sorted(found, key=lambda lack: ("table", "column", "index").index(lack.kind)):
                table = metadata.tables[one.table]
                if one.kind == "table":
                    table.create(connection, checkfirst=True)  # with its indexes
                elif one.kind == "column":
                    text = CreateColumn(table.columns[one.name]).compile(dialect=sqlite.dialect())
                    connection.exec_driver_sql(f"ALTER TABLE {one.table} ADD COLUMN {text}")
                else:
                    index = next(index for index in table.indexes if index.name == one.name)
                    index.create(connection, checkfirst=True)
    finally:
        database.close()
