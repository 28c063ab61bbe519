"""What interrupted commands left in the data directory: found by ``doctor``, deleted by ``purge``.

Whatever is being written has a hidden name until it is whole, so that nothing takes it for the thing itself. Killed at
that moment, the process leaves it; it holds nothing that is not elsewhere.
"""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmtui.domain.text import size
from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services import replacement, writers
from mmtui.store.queries import known
from mmtui.store.session import reading

IDLE_SECONDS = 3600.0
"""What nothing has been written to for so long is not being written any more."""
DELETED = ".deleted"
_FEW = 10
_IN_TRASH = re.compile(r"([0-9]{1,18})(\.[0-9]+)?")


@dataclass(frozen=True)
class Leftover:
    """A file or folder that nobody needs, or soon will not.

    Attributes:
        what: which command left it, for a person.
        free: nobody writes to it any more: its process is known to be dead, or has not written for an hour.
    """

    what: str
    path: Path
    free: bool = True


def find(home: Home, now: float | None = None) -> list[Leftover]:
    """Everything that interrupted commands have left; what somebody may still be writing is left out."""
    return [one for one in look(home, now) if one.free]


def look(home: Home, now: float | None = None) -> list[Leftover]:
    """The same with what somebody may still be writing: a process that was killed a moment ago looks like one at work,
    unless the name tells which it was."""
    before = (time.time() if now is None else now) - IDLE_SECONDS
    return [*_of_purge(home), *_unfinished(home, before)]


def may_go_on(found: Iterable[Leftover]) -> str:
    """What somebody may still be writing, in a sentence; "" if nothing."""
    young = [one for one in found if not one.free]
    if not young:
        return ""
    kinds = ", ".join(dict.fromkeys(one.what for one in young[:_FEW]))
    room = size(sum(bytes_of(one.path) for one in young))
    return f"{room} of {kinds}; what nobody writes to for an hour is freed by: mmtui purge --yes"


def _of_purge(home: Home) -> Iterator[Leftover]:
    """What was to be deleted and is still there."""
    for folder in (home.trash, home.code, home.imported_code, home.stage_cache):
        for path in sorted(folder.glob(f".*{DELETED}")):
            yield Leftover(f"deleted {path.name[1 : -len(DELETED)]}", path)
    rows = _ids(home)
    if rows is None:
        return
    for path in sorted(home.trash.glob("[0-9]*")):
        match = _IN_TRASH.fullmatch(path.name)
        if match is not None and int(match[1]) not in rows:
            yield Leftover(f"files of purged run {match[1]}", path)


def _ids(home: Home) -> set[int] | None:
    """Ids of all runs, removed ones too; None while the database cannot tell."""
    try:
        with reading(home) as reader:
            if reader.connection() is None:
                return None
            return known.ids(reader)
    except MmtuiError:
        return None


def _unfinished(home: Home, before: float) -> Iterator[Leftover]:
    """What was being written when a process ended, or is being written now; ``before``: not written to since."""
    patterns = (
        (home.root, ".import-*", "an import"),
        (home.runs, ".draft-*", "queueing a run"),
        (home.code, ".*", "freezing code"),
        (home.imported_code, ".*", "an import"),
        (home.stage_cache, ".*.writing", "storing a stage"),
        (home.backups, ".*.new*", "a backup"),
        (home.root, ".*restoring.*.new*", "restoring a backup"),
        (home.root, ".views.json.*.new", "saving a view"),
        (home.root, ".*replacing*", "replacing the database"),
        (home.runs, "[0-9]*/.*.writing", "writing a file of a run"),
        (home.runs, "[0-9]*/checkpoints/*/*.writing", "a checkpoint"),
    )
    for folder, pattern, what in patterns:
        for path in sorted(folder.glob(pattern)):
            if not path.name.endswith(DELETED) and not (path.name == replacement.MARK and replacement.unfinished(home)):
                free = writers.is_dead(path.name) or newest_change(path) <= before
                yield Leftover(f"{what} that {'was interrupted' if free else 'may still go on'}", path, free)


def newest_change(path: Path) -> float:
    """When something was last written to a file, or to anything in a folder; Unix time, infinite if it is gone."""
    times = [float("inf")]
    for entry in (path, *path.rglob("*")) if path.is_dir() else (path,):
        try:
            times.append(entry.lstat().st_mtime)
        except OSError:
            continue
    return max(times[1:], default=times[0])


def bytes_of(path: Path) -> int:
    """Size of a file, or of all files in a folder; 0 if it is gone."""
    found = 0
    for entry in (path, *path.rglob("*")) if path.is_dir() else (path,):
        try:
            status = entry.lstat()
            found += 0 if stat.S_ISDIR(status.st_mode) else status.st_size
        except OSError:
            continue
    return found


def mark_deleted(path: Path) -> Path:
    """Give what is to be deleted a name under which nobody looks for it; returns it. In one step, unlike deleting."""
    marked = path.with_name(f".{path.name}{DELETED}")
    number = 0
    while marked.exists():
        number += 1
        marked = path.with_name(f".{path.name}.{number}{DELETED}")
    path.rename(marked)
    return marked
