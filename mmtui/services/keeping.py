"""Labels of runs, the trash, and copies of the database."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from mmtui.domain.states import FINAL_STATES, RunState
from mmtui.errors import NotFoundError, RefusedError, UnreachableError
from mmtui.paths import Home
from mmtui.services.queue import writing
from mmtui.services.text_limits import check_lengths
from mmtui.store import cells
from mmtui.store.reader import Reader
from mmtui.store.schema import schema_revision


def change_tags(home: Home, run_id: str, add: Sequence[str], remove: Sequence[str]) -> tuple[str, ...]:
    """Put tags on a run and take others off; returns those it has now, in the order they were given."""
    from mmtui.store.runs import read_run

    check_lengths("tag", add)
    with writing(home) as session:
        run = read_run(session, int(run_id))
        tags = [tag for tag in dict.fromkeys([*cells.texts(run.tags), *add]) if tag not in remove]
        run.tags = json.dumps(tags)
        session.add(run)
    return tuple(tags)


def set_note(home: Home, run_id: str, text: str) -> None:
    """Write a note on a run; "" removes it."""
    from mmtui.store.runs import read_run

    check_lengths("note", [text])
    with writing(home) as session:
        run = read_run(session, int(run_id))
        run.note = text
        session.add(run)


def remove(home: Home, run_id: str) -> None:
    """Move a finished run to the trash: its row is hidden, its files are put aside.

    Raises:
        RefusedError: it has not finished.
    """
    from mmtui.store.runs import read_run, state_of

    with writing(home) as session:
        run = read_run(session, int(run_id))
        if state_of(run) not in FINAL_STATES and run.state != RunState.HELD:
            raise RefusedError(f"run {run_id} is {run.state}", f"first: mmtui cancel {run_id}")
        run.deleted_at = time.time()
        session.add(run)
        # Inside the transaction: if the files cannot be moved, the run stays where it is.
        folder = home.run(run_id).root
        if folder.exists():
            folder.rename(home.trash / run_id)


def restore(home: Home, run_id: str) -> None:
    """Bring a run back from the trash.

    Raises:
        NotFoundError: it is not there.
    """
    from mmtui.store.runs import read_run

    if not re.fullmatch("[0-9]{1,18}", run_id):
        raise NotFoundError(f"no run '{run_id}' in the trash", "give its id")
    with writing(home) as session:
        run = read_run(session, int(run_id))
        if run.deleted_at is None:
            raise NotFoundError(f"run {run_id} is not in the trash")
        run.deleted_at = None
        session.add(run)
        if (home.trash / run_id).exists():
            (home.trash / run_id).rename(home.run(run_id).root)


def purge(home: Home, *, really: bool) -> list[tuple[str, int]]:
    """Delete the trash and frozen code that no run needs; (what, bytes) of each, also when not ``really``."""
    from mmtui.store.runs import forget_run

    with Reader(home) as reader:
        gone = [str(row[0]) for row in reader.query("SELECT id FROM runs WHERE deleted_at IS NOT NULL")]
        codes_of_runs = [cells.mapped(row[0]) for row in reader.query("SELECT code FROM runs WHERE deleted_at IS NULL")]
    kept = {str(found.get(name, "")) for found in codes_of_runs for name in ("digest", "sha256")}
    found = [(f"run {run_id}", _bytes(home.trash / run_id)) for run_id in gone]
    folders = [*sorted(home.code.glob("*")), *sorted(home.imported_code.glob("*"))]
    codes = [entry for entry in folders if entry.is_dir() and entry.name not in kept]
    found += [(f"code {entry.name}", _bytes(entry)) for entry in codes]
    if really:
        for run_id in gone:
            with writing(home) as session:
                forget_run(session, int(run_id))
            shutil.rmtree(home.trash / run_id, ignore_errors=True)
        for entry in codes:
            shutil.rmtree(entry, ignore_errors=True)
    return found


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.exists() else 0


def backup(home: Home, target: str = "") -> Path:
    """Copy the database while it is in use; returns where the copy lies.

    Raises:
        UnreachableError: there is no database, or the copy cannot be written.
        RefusedError: the target is a file that is no backup of mmtui.
    """
    from mmtui.store.db import backup as copy

    if not home.database.exists():
        raise UnreachableError(f"there is no database at {home.database} yet", "queue a run first")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    file = Path(target).expanduser().absolute() if target else home.backups / f"mmtui-{stamp}.db"
    _refuse_other_files(home, file)
    try:
        return copy(home.database, file)
    except OSError as error:
        raise UnreachableError(f"{file} cannot be written: {error.strerror or error}") from None
    except sqlite3.Error as error:
        raise UnreachableError(f"{home.database} cannot be copied to {file}: {error}") from None


def _refuse_other_files(home: Home, file: Path) -> None:
    """Nothing is written over but an earlier backup.

    Raises:
        RefusedError: something else is there.
    """
    if not file.exists():
        return
    if home.database.exists() and file.samefile(home.database):
        raise RefusedError(f"{file} is the database itself", "give the copy another name")
    try:
        ours = file.is_file() and re.fullmatch("[0-9]{4}", schema_revision(file) or "") is not None
    except UnreachableError:
        ours = False
    if not ours:
        raise RefusedError(f"{file} is there and no backup of mmtui", "give the copy another name")
