"""Labels of runs, and copies of the database."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmtui.errors import RefusedError, UnreachableError, UsageError
from mmtui.paths import Home
from mmtui.services.output_files import check_target, unwritable
from mmtui.services.queue import changing, writing
from mmtui.services.text_limits import check_lengths
from mmtui.services.written import remember, unchanged
from mmtui.store import cells

if TYPE_CHECKING:
    from sqlmodel import Session

LONGEST_NAME = 247
"""Bytes of a database's name: SQLite adds eight for its journal."""


def change_tags(home: Home, run_id: str, add: Sequence[str], remove: Sequence[str]) -> tuple[str, ...]:
    """Put tags on a run and take others off; returns those it has now, in the order they were given."""
    ((_, tags),) = change_tags_of_all(home, [run_id], add, remove)
    return tags


def change_tags_of_all(
    home: Home, run_ids: Iterable[str], add: Sequence[str], remove: Sequence[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The same for many runs; yields the id and the tags of each when it is done."""
    from mmtui.store.runs import read_run

    check_lengths("tag", add)
    tags: dict[str, tuple[str, ...]] = {}

    def change(session: Session, run_id: str) -> None:
        run = read_run(session, int(run_id))
        now = dict.fromkeys([*cells.texts(run.tags), *add])
        tags[run_id] = tuple(tag for tag in now if tag not in remove)
        run.tags = json.dumps(tags[run_id])
        session.add(run)

    for run_id in changing(home, run_ids, change):
        yield run_id, tags[run_id]


def set_note(home: Home, run_id: str, text: str) -> None:
    """Write a note on a run; "" removes it."""
    from mmtui.store.runs import read_run

    check_lengths("note", [text])
    with writing(home) as session:
        run = read_run(session, int(run_id))
        run.note = text
        session.add(run)


def backup(home: Home, target: Path | None = None, *, force: bool = False) -> Path:
    """Copy the database while it is in use; returns where the copy lies.

    Args:
        target: where to; None: a new file in the backups folder. An earlier backup is replaced.
        force: also a file that is no backup.

    Raises:
        UnreachableError: there is no database, or the copy cannot be written.
        RefusedError, UsageError: as of ``check_backup``.
    """
    from mmtui.store.db import backup as copy
    from mmtui.store.db import unused
    from mmtui.store.schema import FILE_ERRORS, refuse_lost

    refuse_lost(home)
    if not home.database.exists():
        raise UnreachableError(f"there is no database at {home.database} yet", "queue a run first")
    file = unused(home.backups, time.strftime("mmtui-%Y%m%d-%H%M%S")) if target is None else target
    check_backup(home, file, force=force)
    try:
        made = copy(home.database, file, overwrite=target is not None and (force or file.exists()))
        remember(home, made)
        return made
    except OSError as error:
        raise unwritable(error, file) from None
    except FILE_ERRORS as error:
        raise UnreachableError(f"{home.database} cannot be copied to {file}: {error}") from None


def check_backup(home: Home, file: Path, *, force: bool = False) -> None:
    """Nothing is written over but an earlier backup, or by ``force`` what else is no database in use.

    Raises:
        UsageError: SQLite could name no journal of such a database.
        RefusedError: something else is there.
        UnreachableError: it cannot be known what is there.
    """
    from mmtui.store.db import is_backup

    if len(os.fsencode(file.name)) > LONGEST_NAME:
        raise UsageError(f"the name of {file} is too long for a database", f"write at most {LONGEST_NAME} bytes")
    if file.exists():
        if not file.is_file():
            raise RefusedError(f"{file} is no file", "give the copy another name")
        if home.database.exists() and file.samefile(home.database):
            raise RefusedError(f"{file} is the database itself", "give the copy another name")
        if Path(f"{os.path.realpath(file)}-wal").exists():
            # Its log would be taken for that of the copy.
            raise RefusedError(f"{file} is a database in use", "give the copy another name")
    check_target(file, force=force, is_ours=unchanged(home, is_backup))
