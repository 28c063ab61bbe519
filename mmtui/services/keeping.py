"""Labels of runs, and copies of the database."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from mmtui.errors import RefusedError, UnreachableError
from mmtui.paths import Home
from mmtui.services.queue import writing
from mmtui.services.text_limits import check_lengths
from mmtui.store import cells
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
