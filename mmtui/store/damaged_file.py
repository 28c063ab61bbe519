"""A damaged database, read as far as it can be: one row and, if need be, one cell at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from mmtui.paths import size_of


class UnreadableError(Exception):
    """Nothing can be read of what was asked for, in SQLite's words."""


@contextmanager
def opened(file: Path) -> Iterator[DamagedFile]:
    """The file, to be read; nothing is put beside one that has no log.

    Raises:
        UnreadableError: SQLite cannot open it, or not read it; also while it is open.
    """
    log = Path(f"{file}-wal")
    alone = "" if size_of(log) else "&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{quote(bytes(file))}?mode=ro{alone}", uri=True)) as connection:
            connection.text_factory = bytes
            connection.execute("PRAGMA writable_schema=ON")  # else SQLite opens no file that is cut short
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA trusted_schema=OFF")
            yield DamagedFile(connection)
    except sqlite3.Error as error:
        raise UnreadableError(str(error)) from error


class DamagedFile:
    """Asks a database that is open. Texts come as bytes: they may be none."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def columns(self) -> set[str]:
        """Columns of the table of runs.

        Raises:
            UnicodeDecodeError: a name is no text.
        """
        return {str(row[1], "utf-8") for row in self._connection.execute("PRAGMA table_info(runs)")}

    def run(self, run_id: int, columns: Sequence[str]) -> dict[str, object] | None:
        """{column: cell} of a run, without the cells that cannot be read; None if there is no such run.

        Raises:
            UnreadableError: not even whether there is one can be read.
        """
        with suppress(sqlite3.Error):
            row = self._cells(run_id, ", ".join(columns))
            return None if row is None else dict(zip(columns, row, strict=True))
        found: dict[str, object] = {}
        for column in columns:
            with suppress(sqlite3.Error):
                row = self._cells(run_id, column)
                if row is not None:
                    found[column] = row[0]
        if not found:
            raise UnreadableError(f"the row of run {run_id}")
        return found

    def _cells(self, run_id: int, columns: str) -> tuple[object, ...] | None:
        row: tuple[object, ...] | None
        row = self._connection.execute(f"SELECT {columns} FROM runs WHERE id = ?", [run_id]).fetchone()
        return row

    def settings(self, *, backwards: bool) -> Iterator[tuple[object, object]]:
        """(key, value) of the settings by key, from one end: what lies behind a bad page is reached from the other.

        Raises:
            UnreadableError: the next one cannot be read.
        """
        try:
            order = "DESC" if backwards else "ASC"
            yield from self._connection.execute(f"SELECT key, value FROM settings ORDER BY key {order}")
        except sqlite3.Error as error:
            raise UnreadableError(str(error)) from error
