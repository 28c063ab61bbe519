"""Connections: writers that take the lock first, readers that cannot write, migrations with a backup.

Rules (each guarded by a test, see docs/architecture.md): every write transaction starts with BEGIN IMMEDIATE; only
the supervisor checkpoints the WAL; readers open the file read-only.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, create_engine

from engine.outputs import OutputExistsError, replacing
from mmtui.access import remedy
from mmtui.errors import RefusedError, UnreachableError
from mmtui.paths import Home, size_of
from mmtui.store.reserve import DiskReserve
from mmtui.store.schema import HEAD, is_full, refuse_lost, schema_revision

BUSY_SECONDS = 10.0


class Database:
    """The writing side of one data directory.

    Args:
        home: the data directory; the database is made or migrated if need be.
        anew: it may be made though folders of runs are there: what calls makes the rows of these, too.
        checkpoints: whether this process checkpoints the WAL; only the supervisor does, because SQLite before
            3.51.3 can corrupt a WAL when several connections checkpoint at once.
    """

    def __init__(self, home: Home, *, checkpoints: bool = False, anew: bool = False) -> None:
        self.home = home
        home.create()
        if not checkpoints:
            # On a full disk there is room for what a person asks for: an idle supervisor would not give it. It gives
            # its own share only where a write has failed: trainers take at once what is free.
            DiskReserve(home).release()
        prepare(home, anew=anew)
        self.engine = create_engine(
            URL.create("sqlite", database=str(home.database)),  # a text would give ? and % in a path a meaning
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        )
        self._checkpoints = checkpoints
        event.listen(self.engine, "connect", self._on_connect)
        event.listen(self.engine, "begin", _begin_immediate)

    def _on_connect(self, connection: sqlite3.Connection, _record: object) -> None:
        # pysqlite would open transactions by itself, deferred; BEGIN is ours (see _begin_immediate).
        connection.isolation_level = None
        apply_pragmas(connection, self._checkpoints)

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[Session]:
        """One short write transaction: committed at the end, rolled back on any error.

        Args:
            durable: survive a power loss, not only a crash; for what a person asked for.

        Raises:
            UnreachableError: the database is locked for longer than the busy timeout, full or damaged.
        """
        try:
            with Session(self.engine, expire_on_commit=False) as session:
                session.connection()  # takes the write lock now, not at the first change
                yield session
                session.commit()
            if durable:
                # synchronous=FULL in effect: PRAGMA synchronous cannot be changed inside a transaction.
                sync_file(self.home.database.with_name("mmtui.db-wal"))
        except Exception as error:
            raise _translated(error, self.home) from error

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _begin_immediate(connection: Any) -> None:
    # A deferred BEGIN that reads first fails with "locked" at once when another has written meanwhile.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _translated(error: Exception, home: Home) -> Exception:
    original = getattr(error, "orig", error)
    if isinstance(error, OSError) and str(error.filename or "").startswith(str(home.database)):
        text = f"the database {home.database} cannot be brought to the disk: {error.strerror}"
        return UnreachableError(text, "what was asked for is done, unless the power fails; see: mmtui doctor")
    if isinstance(original, sqlite3.OperationalError | sqlite3.DatabaseError) and not isinstance(
        original, sqlite3.IntegrityError
    ):
        if "disk is full" in str(original) or is_full(home.root):
            text, hint = "the disk is full", "free some space, then do the same again"
        else:
            text = str(original)
            hint = "see: mmtui doctor" if "no such" in text else remedy(home.database)
        return UnreachableError(f"the database {home.database} cannot be written: {text}", hint)
    return error


def apply_pragmas(connection: sqlite3.Connection, checkpoints: bool) -> None:
    """Settings of every writing connection."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
    connection.execute(f"PRAGMA wal_autocheckpoint={1000 if checkpoints else 0}")


def sync_file(path: Path) -> None:
    """fsync a file, if it is there."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = str(path)  # which fsync does not know
        raise
    finally:
        os.close(descriptor)


def prepare(home: Home, *, anew: bool = False) -> None:
    """Create or migrate the database, one process at a time; a filled one is backed up before it is changed.

    Raises:
        UnreachableError: written by a newer mmtui, or no database at all; gone, and not to be made ``anew``.
    """
    revision = schema_revision(home.database)
    if revision == HEAD:
        return
    if revision is None and not anew:
        refuse_lost(home)
    try:
        with _locked(home.root / "migrate.lock"):
            _make_or_upgrade(home)
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise UnreachableError(f"the database {home.database} cannot be made or upgraded: {why}") from error


def _make_or_upgrade(home: Home) -> None:
    revision = schema_revision(home.database)
    if revision == HEAD:
        return
    if revision is not None:
        _refuse_newer(home, revision)
        _refuse_served(home)
    if size_of(home.database):
        backup(home.database, unused(home.backups, f"before-{HEAD}-{int(time.time())}"))
    try:
        _migrate(home)
    except SQLAlchemyError as error:
        raise UnreachableError(
            f"the database {home.database} cannot be made or upgraded: {getattr(error, 'orig', error)}",
            f"a copy of it as it was lies in {home.backups}",
        ) from error


def _refuse_newer(home: Home, revision: str) -> None:
    if revision > HEAD:
        raise UnreachableError(
            f"{home.database} was written by a newer mmtui (schema {revision}, this one knows {HEAD})",
            "upgrade mmtui, or set MMTUI_HOME to another directory",
        )


def _refuse_served(home: Home) -> None:
    """An older mmtui's supervisor may be at work on the database: it must not change under its hands."""
    try:
        descriptor = os.open(home.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 4096, 0).decode(errors="replace")
        if f'"pid": {os.getpid()},' not in holder:
            raise UnreachableError(
                f"{home.database} has an older schema, and an older mmtui's supervisor is at work on it",
                "run: mmtui daemon stop (running trainers go on), then the same again",
            ) from None
    finally:
        os.close(descriptor)


def _migrate(home: Home) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    # The option is read through an interpolation that gives % a meaning.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["database"] = home.database
    previous = os.umask(0o077)
    try:
        command.upgrade(config, "head")
    finally:
        os.umask(previous)


def backup(source: Path, target: Path, *, overwrite: bool = False) -> Path:
    """Copy a database while it is in use. The copy is written beside its target: whatever fails, that stays as it was.

    Raises:
        RefusedError: the target is there, and not ``overwrite``.
        OSError, sqlite3.Error: it cannot be written, or the source cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with replacing(target, overwrite=overwrite, mode=0o600) as made:
            _copy(source, made)
    except OutputExistsError as error:
        raise RefusedError(str(error), "give the copy another name") from None
    return target


def _copy(source: Path, made: Path) -> None:
    try:
        with closing(sqlite3.connect(source)) as origin, closing(sqlite3.connect(made)) as copy:
            origin.backup(copy)
            # One file, that can be read where nothing can be written.
            copy.execute("PRAGMA journal_mode=DELETE")
    finally:
        for suffix in ("-wal", "-shm", "-journal"):
            made.with_name(made.name + suffix).unlink(missing_ok=True)


def unused(folder: Path, stem: str) -> Path:
    """A name for a backup that none has: that of the same second before it is not written over."""
    names = (folder / f"{stem}{f'-{number}' if number else ''}.db" for number in count())
    return next(file for file in names if not file.exists())


def is_backup(file: Path) -> bool:
    """Whether a file is a database of mmtui as ``backup`` leaves it: whole in itself, and not one that is in use.

    In use it keeps a log beside it (write-ahead logging); the header says so for as long as it is no copy.
    """
    try:
        with file.open("rb") as opened:
            if opened.read(20)[18:] != b"\1\1":
                return False  # not even opened by SQLite, which would put files beside it
        return re.fullmatch("[0-9]{4}", schema_revision(file) or "") is not None
    except (OSError, UnreachableError):
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
