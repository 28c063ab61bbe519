"""The trash: removed runs, which can be restored until they are purged.

The row decides, and no order of a crash leaves more than one reading (docs/crash-safety.md): the files of a run that is
listed lie in ``runs``; those of a removed run lie in ``trash``, or still in ``runs`` if the process ended in between.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmtui.domain.states import FINAL_STATES, RunState
from mmtui.errors import NotFoundError, RefusedError
from mmtui.paths import Home
from mmtui.services import leftovers, unfinished
from mmtui.services.queue import changing, writing
from mmtui.store.queries import codes, known
from mmtui.store.queries import trash as hidden_runs
from mmtui.store.reader import Reader
from mmtui.store.session import reading

if TYPE_CHECKING:
    from sqlmodel import Session


def remove(home: Home, run_id: str) -> None:
    """Move a finished run to the trash: its row is hidden, its files are put aside.

    Raises:
        RefusedError: it has not finished.
        UnreachableError: the database cannot be written; nothing has changed.
    """
    list(remove_all(home, [run_id]))


def remove_all(home: Home, run_ids: Iterable[str]) -> Iterator[str]:
    """The same for many runs; yields the id of each when it is done. All are looked at before the first one goes.

    Raises:
        RefusedError: one of them has not finished; none is removed.
    """
    from mmtui.store.runs import read_run, state_of

    ids = list(run_ids)
    with reading(home) as reader:
        _refuse_unfinished(reader, ids)

    def hide(session: Session, run_id: str) -> None:
        run = read_run(session, int(run_id))
        _refuse(run_id, state_of(run))  # it may have been started meanwhile
        run.deleted_at = time.time()
        session.add(run)

    # The rows first: on a full disk it is the row that fails, and then no file has been touched.
    hidden = list(changing(home, ids, hide))
    yield from put_aside(home, hidden)


def _refuse_unfinished(reader: Reader, ids: Iterable[str]) -> None:
    states = {str(run_id): state for run_id, state in known.states(reader).items()}
    for run_id in ids:
        if states.get(run_id) in list(RunState):  # a damaged row is told of when it is to be changed
            _refuse(run_id, RunState(states[run_id]))


def _refuse(run_id: str, state: RunState) -> None:
    if state not in FINAL_STATES and state is not RunState.HELD:
        raise RefusedError(f"run {run_id} is {state.value}", f"first: mmtui cancel {run_id}")


def put_aside(home: Home, run_ids: Iterable[str]) -> Iterator[str]:
    """Move the files of removed runs to the trash. With the write lock: nobody restores them meanwhile."""
    from mmtui.store.tables import Run

    def move(session: Session, run_id: str) -> None:
        run = session.get(Run, int(run_id))
        folder, target = home.run(run_id).root, home.trash / run_id
        if run is not None and run.deleted_at is not None and folder.exists() and not target.exists():
            folder.rename(target)

    return changing(home, run_ids, move)


def restore(home: Home, run_id: str) -> None:
    """Bring a run back from the trash.

    Raises:
        NotFoundError: it is not there.
        RefusedError: it is half of an import, or of a sweep.
        UnreachableError: the database cannot be written; it is still in the trash.
    """
    list(restore_all(home, [run_id]))


def restore_all(home: Home, run_ids: Iterable[str]) -> Iterator[str]:
    """The same for many runs; yields the id of each when it is done."""
    from mmtui.store.runs import read_run

    def bring_back(session: Session, run_id: str) -> None:
        if not re.fullmatch("[0-9]{1,18}", run_id):
            raise NotFoundError(f"no run '{run_id}' in the trash", "give its id")
        run = read_run(session, int(run_id))
        if run.deleted_at is None:
            raise NotFoundError(f"run {run_id} is not in the trash")
        if unfinished.is_unfinished(run.reason):
            hint = unfinished.remedy(run.reason)
            raise RefusedError(f"run {run_id} is not whole: {run.reason}", hint)
        run.deleted_at = None
        session.add(run)
        # Before the commit: a run that is listed has its files. If it fails, the run is in the trash as before,
        # with its files in ``runs``, where restoring finds them.
        if (home.trash / run_id).exists() and not home.run(run_id).root.exists():
            (home.trash / run_id).rename(home.run(run_id).root)

    return changing(home, run_ids, bring_back)


def purge(
    home: Home, *, really: bool, tell: Callable[[int, int], None] = lambda _done, _total: None
) -> list[tuple[str, int]]:
    """Delete the trash, frozen code that no run needs, and what interrupted commands left.

    Runs that are being imported are hidden until they are whole, and stay.

    Args:
        tell: called with (done, total) runs on the way.

    Returns:
        (what, bytes) of each, also when not ``really``; of what could not be deleted only the bytes that are free now.
    """
    if really:
        unfinished.sweep(home)
    with reading(home) as reader:
        rows = hidden_runs.hidden(reader)
        removed = [str(run_id) for run_id, reason in rows if not unfinished.is_unfinished(reason)]
    # Leftovers first: on a full disk the rows of the rest can only be changed once there is some room.
    found = [_deleted(one.what, [one.path], really=really) for one in leftovers.find(home)]
    found += [_deleted(f"code {path.name}", [path], really=really) for path in _unused_code(home, really=really)]
    for done, run_id in enumerate(_forgotten(home, removed) if really else removed, 1):
        found.append(_deleted(f"run {run_id}", [home.trash / run_id, home.run(run_id).root], really=really))
        tell(done, len(removed))
    return found


def _forgotten(home: Home, run_ids: Sequence[str]) -> Iterator[str]:
    """Removed runs, the rows of each deleted; those that somebody has brought back meanwhile stay. What then remains
    of the files is a leftover, which the next purge deletes."""
    from mmtui.store.runs import forget_run
    from mmtui.store.tables import Run

    gone = set[str]()

    def forget(session: Session, run_id: str) -> None:
        run = session.get(Run, int(run_id))
        if run is not None and run.deleted_at is not None:
            forget_run(session, int(run_id))
            gone.add(run_id)

    aside = list(put_aside(home, run_ids))
    return (run_id for run_id in changing(home, aside, forget) if run_id in gone)


def _unused_code(home: Home, *, really: bool) -> list[Path]:
    """Frozen code that no listed run needs; if ``really``, renamed with the write lock held, as queueing looks then."""
    if not really:
        return _code_without_runs(home)
    with writing(home):
        return [leftovers.mark_deleted(path) for path in _code_without_runs(home)]


def _code_without_runs(home: Home) -> list[Path]:
    with reading(home) as reader:
        frozen = codes.in_use(reader)
    needed = {str(code.get(name, "")) for code in frozen for name in ("digest", "sha256")}
    folders = [*sorted(home.code.glob("*")), *sorted(home.imported_code.glob("*"))]
    return [path for path in folders if path.is_dir() and path.name[0] != "." and path.name not in needed]


def _deleted(what: str, paths: Iterable[Path], *, really: bool) -> tuple[str, int]:
    """Delete folders or files; what it was, and how many bytes that freed (or would free)."""
    before = sum(leftovers.bytes_of(path) for path in paths)
    if not really:
        return what, before
    for path in paths:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink(True)
    return what, before - sum(leftovers.bytes_of(path) for path in paths)
