"""``doctor --fix``: what can be mended without losing anything is mended, and each deed is told."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmtui.domain.text import printable
from mmtui.errors import MmtuiError, NotFoundError, RefusedError, UnreachableError
from mmtui.paths import Home
from mmtui.services import pending_edits, replacement, salvage, supervisors
from mmtui.services.doctor import checks
from mmtui.services.queue import writing
from mmtui.services.register import UNREADABLE, rebuild, told_by_folder
from mmtui.services.replacement import Replacement
from mmtui.store import cells, wholeness
from mmtui.store.db import Database, backup, unused
from mmtui.store.queries import damaged
from mmtui.store.schema import FILE_ERRORS, damage, lost, schema_revision
from mmtui.store.session import reading
from mmtui.store.write import repair

_MENDS = ("home", "database", "folders", "files", "rows", "edits", "supervisor")
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
        "files": _return_files,
        "rows": _mend_rows,
        "edits": _settle_edits,
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
    """Put the newest sound backup in the place of the damaged file, which is kept, then take in what came after it.

    Only what SQLite itself finds damaged, or what lacks a part of its schema: what cannot be read now may be whole.
    """
    begun = replacement.unfinished(home)
    if begun and not damage(home.database):
        _refuse_served(home)
        yield f"the replacement of the database is finished, which was interrupted; the old one is kept as {begun.kept}"
        yield from _fill(home, begun)
        return
    if lost(home):
        _refuse_served(home)
        yield "the database is gone: every run is made again from its folder"
        yield from _take_in(home, trash=True)
        yield f"notes, tags given later, limits and budgets are gone with it{_told_of_backup(home)}"
        return
    problem = damage(home.database)
    missing = [] if problem else _lacking(home.database)
    if not problem and not missing:
        yield f"the database is left as it is: nothing shows that it is damaged ({home.database})"
        return
    _refuse_served(home)
    if missing and all(one.can_be_added for one in missing):
        yield from _complete(home, missing)
        return
    why = problem.splitlines()[0] if problem else f"it has no {', no '.join(map(str, missing))}"
    yield f"the database is damaged ({printable(why)}): it is replaced, and kept"
    found = _newest_sound(home)
    replaced = replacement.exchange(home, found, "damaged", chosen=False)
    if replaced:
        yield f"the damaged database is kept as {replaced.kept}"
    yield "there is no sound backup: every run is made again from its folder" if found is None else f"restored {found}"
    yield from _fill(home, replaced)


def _fill(home: Home, replaced: Replacement | None) -> Iterator[str]:
    """What the new database lacks: runs from their folders, then what only the old database tells."""
    yield from _take_in(home, trash=True)
    if replaced:
        yield from salvage.take_over(home, replaced.kept, replacement.made_since(home, replaced))
    replacement.finish(home)


def _lacking(file: Path) -> list[wholeness.Lack]:
    """What is missing of a database of this schema; nothing where that cannot be told."""
    try:
        return wholeness.lacking(file)
    except UnreachableError:
        return []


def _complete(home: Home, missing: Sequence[wholeness.Lack]) -> Iterator[str]:
    """Make what is missing, where nothing else has to change for it; a copy from before is kept."""
    kept = unused(home.backups, f"incomplete-{int(time.time())}")
    try:
        backup(home.database, kept)
    except FILE_ERRORS as error:
        why = getattr(error, "strerror", None) or error
        raise UnreachableError(f"{home.database} cannot be copied to {kept}: {why}", "nothing is changed") from None
    yield f"the database as it was is kept as {kept}"
    wholeness.add(home, missing)
    for one in missing:
        yield f"{one} is made again" + ("" if one.kind == "index" else ", empty: what it held is gone")
    if any(one.name == "settings" for one in missing):
        yield "limits, budgets and whether the queue is closed: set them again"


def _told_of_backup(home: Home) -> str:
    found = _newest_sound(home)
    return "" if found is None else f"; a backup has them as they were then: mmtui backup --restore {found}"


def restore_backup(home: Home, file: Path) -> Iterator[str]:
    """Put a backup in the place of the database, which is kept; runs that came after it are made from their folders.

    Raises:
        NotFoundError: there is no such file.
        UnreachableError: it is no sound database of mmtui, or cannot be copied.
        RefusedError: a supervisor is at work.
    """
    if not file.is_file():
        raise NotFoundError(f"there is no file {file}", f"backups made by mmtui lie in {home.backups}")
    if not _is_sound(file):
        raise UnreachableError(f"{file} is no sound database of mmtui", "give another backup")
    _refuse_served(home)
    home.create()
    replaced = replacement.exchange(home, file, "replaced", chosen=True)
    if replaced:
        yield f"the database as it was is kept as {replaced.kept}"
    yield f"restored {file}"
    yield from _fill(home, replaced)
    yield from _return_files(home)


def _refuse_served(home: Home) -> None:
    if supervisors.status(home).running:
        raise RefusedError("a supervisor is at work on the database", "stop it first: mmtui daemon stop")


def _newest_sound(home: Home) -> Path | None:
    """The newest backup that SQLite finds whole."""
    files = sorted(home.backups.glob("*.db"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((file for file in files if _is_sound(file)), None)


def _is_sound(file: Path) -> bool:
    try:
        return schema_revision(file) is not None and not damage(file) and not wholeness.lacking(file)
    except UnreachableError:
        return False


def _take_in(home: Home, *, trash: bool = False) -> Iterator[str]:
    """Runs that the database does not know, from their folders, those in the trash too if ``trash``."""
    for found in rebuild(home, trash=trash):
        if found.problem:
            yield f"run folder {found.folder} could not be read: {found.problem}"
        else:
            yield f"run {found.run_id} made again from its folder: {found.state}"


def _mend_rows(home: Home) -> Iterator[str]:
    """Damaged cells from the run's folder; what it does not tell is emptied."""
    with reading(home) as reader:
        found = damaged.runs(reader)
    for run_id, columns in found:
        try:
            told = told_by_folder(home, run_id)
        except UNREADABLE as error:
            yield f"run {run_id} cannot be mended, its folder does not help: {printable(str(error))}"
            continue
        database = Database(home)
        with database.write(durable=True) as session:
            for column in dict.fromkeys(columns):
                repair.set_cell(session, run_id, column, told.get(column))
        database.close()
        yield f"run {run_id}: {', '.join(columns)} mended"


def _return_files(home: Home) -> Iterator[str]:
    """Runs that are listed, and whose files are in the trash: a copy of the database from before they were removed."""
    with reading(home) as reader:
        ids = reader.ids()
    for run_id in map(str, ids):
        if (home.trash / run_id).exists() and not home.run(run_id).root.exists():
            (home.trash / run_id).rename(home.run(run_id).root)
            yield f"run {run_id}: its files are back from the trash"


def _settle_edits(home: Home) -> Iterator[str]:
    """Files of runs whose edit ended half way."""
    from mmtui.store.runs import read_run

    for run_id in pending_edits.unsettled(home):
        try:
            with writing(home) as session:
                overrides = cells.texts(read_run(session, int(run_id)).overrides)
                pending_edits.settle(home, run_id, overrides)
        except (MmtuiError, OSError) as error:
            yield f"the edit of run {run_id} cannot be finished: {printable(str(error))}"
            continue
        yield f"run {run_id}: its files say what its row says"


def _serve(home: Home) -> Iterator[str]:
    supervisors.ensure(home)
    yield "a supervisor runs now"
