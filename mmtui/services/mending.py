"""``doctor --fix``: what can be mended without losing anything is mended, and each deed is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from mmtui.domain.text import printable
from mmtui.errors import NotFoundError, RefusedError, UnreachableError
from mmtui.paths import Home
from mmtui.services import supervisors
from mmtui.services.doctor import checks
from mmtui.services.register import UNREADABLE, rebuild, told_by_folder
from mmtui.store.cells import DAMAGED
from mmtui.store.db import Database, backup
from mmtui.store.reader import Reader
from mmtui.store.schema import damage, schema_revision

_MENDS = ("home", "database", "folders", "rows", "supervisor")
"""Checks that have a cure here, in the order of curing: a database that lives comes before what it holds."""


def fix(home: Home) -> Iterator[str]:
    """Mend what is wrong; yields a sentence for every deed.

    Raises:
        RefusedError: a supervisor is at work on a database that has to be replaced.
    """
    wrong = {check.name: check for check in checks(home) if check.ok is False}
    cures = {
        "home": _close_home,
        "database": _replace_database,
        "folders": _take_in,
        "rows": _mend_rows,
        "supervisor": _serve,
    }
    for name in _MENDS:
        if name in wrong:
            yield from cures[name](home)
        if name == "database" and name in wrong:
            wrong |= {check.name: check for check in checks(home) if check.ok is False}


def _close_home(home: Home) -> Iterator[str]:
    home.root.chmod(0o700)
    yield f"{home.root} is private to you now"


def _replace_database(home: Home) -> Iterator[str]:
    """Set the damaged file aside, put the newest sound backup in its place, then take in what came after it.

    Only what SQLite itself finds damaged: what cannot be read now may be whole.
    """
    problem = damage(home.database)
    if not problem:
        yield f"the database is left as it is: nothing shows that it is damaged ({home.database})"
        return
    yield f"the database is damaged ({printable(problem.splitlines()[0])}): it is replaced, and kept"
    yield f"the damaged database is kept as {_set_aside(home, 'damaged')}"
    found = _newest_sound(home)
    if found is None:
        yield "there is no sound backup: every run is made again from its folder"
    else:
        backup(found, home.database)
        yield f"restored {found}"
    yield from _take_in(home)


def restore_backup(home: Home, file: Path) -> Iterator[str]:
    """Put a backup in the place of the database, which is kept; runs that came after it are made from their folders.

    Raises:
        NotFoundError: there is no such file.
        UnreachableError: it is no sound database of mmtui.
        RefusedError: a supervisor is at work.
    """
    if not file.is_file():
        raise NotFoundError(f"there is no file {file}", f"backups made by mmtui lie in {home.backups}")
    if not _is_sound(file):
        raise UnreachableError(f"{file} is no sound database of mmtui", "give another backup")
    home.create()
    if home.database.exists():
        yield f"the database as it was is kept as {_set_aside(home, 'replaced')}"
    backup(file, home.database)
    yield f"restored {file}"
    yield from _take_in(home)


def _set_aside(home: Home, word: str) -> str:
    """Rename the database and what belongs to it; returns its new name."""
    if supervisors.status(home).running:
        raise RefusedError("a supervisor is at work on the database", "stop it first: mmtui daemon stop")
    mark = f"{word}-{int(time.time())}"
    for suffix in ("", "-wal", "-shm"):
        file = Path(f"{home.database}{suffix}")
        if file.exists():
            file.rename(f"{home.database}.{mark}{suffix}")
    return f"{home.database.name}.{mark}"


def _newest_sound(home: Home) -> Path | None:
    """The newest backup that SQLite finds whole."""
    files = sorted(home.backups.glob("*.db"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((file for file in files if _is_sound(file)), None)


def _is_sound(file: Path) -> bool:
    try:
        return schema_revision(file) is not None and not damage(file)
    except UnreachableError:
        return False


def _take_in(home: Home) -> Iterator[str]:
    for found in rebuild(home):
        if found.problem:
            yield f"run folder {found.folder} could not be read: {found.problem}"
        else:
            yield f"run {found.run_id} made again from its folder: {found.state}"


def _mend_rows(home: Home) -> Iterator[str]:
    """Damaged cells from the run's folder; what it does not tell is emptied."""
    with Reader(home) as reader:
        damaged = [(int(row[0]), row[1].split()) for row in reader.query(DAMAGED)]
    for run_id, columns in damaged:
        try:
            told = told_by_folder(home, run_id)
        except UNREADABLE as error:
            yield f"run {run_id} cannot be mended, its folder does not help: {printable(str(error))}"
            continue
        database = Database(home)
        with database.write(durable=True) as session:
            for column in dict.fromkeys(columns):
                sql = f"UPDATE runs SET {column} = ? WHERE id = ?"
                session.connection().exec_driver_sql(sql, (told.get(column), run_id))
        database.close()
        yield f"run {run_id}: {', '.join(columns)} mended"


def _serve(home: Home) -> Iterator[str]:
    supervisors.ensure(home)
    yield "a supervisor runs now"
