"""Another database in the place of the old one, which is kept: what is still to be read from it survives a crash."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.files import link, sync_folder
from mmtui.errors import UnreachableError
from mmtui.paths import Home
from mmtui.services import writers
from mmtui.services.run_folders import write_file
from mmtui.store import cells
from mmtui.store.db import backup
from mmtui.store.queries import known
from mmtui.store.schema import FILE_ERRORS
from mmtui.store.session import reading
from mmtui.store.write import log

MARK = ".replacing"
"""In the data directory, from before the exchange until everything has been read from the old database."""


@dataclass(frozen=True)
class Replacement:
    """An exchange after which the old file was not yet read to its end.

    Attributes:
        kept: what the old database is called now, in the data directory.
        known: runs that the new database had from the start, if it was chosen by a person: they stay as they are
            there. None if nobody chose it: what the old file tells of any run is read.
    """

    kept: str
    known: frozenset[int] | None


def exchange(home: Home, source: Path | None, word: str, *, chosen: bool) -> Replacement | None:
    """Put a copy of ``source``, or nothing, in the place of the database; None if there was none before.

    At every moment the database's name means the old one or the new one, whole.

    Args:
        word: what the old one is called by: ``damaged`` or ``replaced``.
        chosen: a person named ``source``.

    Raises:
        UnreachableError: the copy cannot be written; the database is as it was.
    """
    made, found = home.root / f".restoring.{writers.mark()}.new", None
    try:
        made.unlink(missing_ok=True)  # of a process that was killed and had the same number
        if source is not None:
            backup(source, made)
        if home.database.exists():
            found = Replacement(_keep_old(home, word), known.ids_in(made) if chosen else None)
            _note(home, found)
        if source is not None:
            made.rename(home.database)
        elif found:
            home.database.unlink()
        sync_folder(home.root)
    except FILE_ERRORS as error:
        made.unlink(missing_ok=True)
        why = getattr(error, "strerror", None) or error
        raise UnreachableError(f"{source or home.database} cannot be copied within {home.root}: {why}") from None
    return found


def unfinished(home: Home) -> Replacement | None:
    """The exchange that a crash has ended before everything was read from the old database."""
    try:
        told = cells.mapped((home.root / MARK).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    kept, first = str(told.get("kept", "")), told.get("known")
    if not kept.startswith(f"{home.database.name}.") or "/" in kept or not (home.root / kept).exists():
        return None
    if home.database.exists() and home.database.samefile(home.root / kept):
        return None  # the crash came before the exchange: the old one is in its place
    return Replacement(kept, frozenset(first) if isinstance(first, list) else None)


def finish(home: Home) -> None:
    """Everything has been read from the old database."""
    (home.root / MARK).unlink(missing_ok=True)


def _note(home: Home, found: Replacement) -> None:
    first = None if found.known is None else sorted(found.known)
    write_file(home.root / MARK, json.dumps({"kept": found.kept, "known": first}))


def made_since(home: Home, found: Replacement) -> set[str] | None:
    """Runs that the new database did not have at first; None = whichever there are."""
    if found.known is None:
        return None
    with reading(home) as reader:
        return {str(run_id) for run_id in known.ids(reader) - found.known}


def _keep_old(home: Home, word: str) -> str:
    """A second name for the database, with all that its log holds; returns that name."""
    log.empty(home.database)
    number = int(time.time())
    while (kept := home.database.with_name(f"{home.database.name}.{word}-{number}")).exists():
        number += 1
    # A log that could not be copied into the file goes with it: beside another database it would be believed.
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{home.database}{suffix}").rename(f"{kept}{suffix}")
    link(home.database, kept)
    return kept.name
