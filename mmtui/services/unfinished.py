"""Runs whose rows are still being made: hidden like those in the trash until all of them is here.

What a killed import, or a ``mmtui run`` that was killed, leaves is removed by the next one, and by ``mmtui purge``;
``mmtui restore`` refuses it. Rows that were being made again from a run's folder are made once more by the next
``mmtui doctor --fix``.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmtui.paths import Home
from mmtui.store.session import reading

if TYPE_CHECKING:
    from sqlmodel import Session

    from mmtui.store.db import Database

DRAFT = ".draft-"
"""What the folder of a run is called, before its id, until it is whole."""
IMPORT, REBUILD, QUEUEING = "import", "rebuild", "queueing"
_REASON = re.compile(r"its (import|rebuild|queueing) has not finished \(process ([0-9]{1,10}) on (.*)\)")


def reason(what: str) -> str:
    """What the row of a run says while this process makes it; ``what``: ``IMPORT``, ``REBUILD`` or ``QUEUEING``."""
    return f"its {what} has not finished (process {os.getpid()} on {socket.gethostname()})"


def is_unfinished(text: str) -> bool:
    """Whether a row's reason is that of a run whose rows are not all there yet, or never will be."""
    return _REASON.fullmatch(text) is not None


def remedy(text: str) -> str:
    """What to do about a run with such a reason."""
    found = _REASON.fullmatch(text)
    what = found[1] if found else ""
    if what == REBUILD:
        return "mmtui doctor --fix"
    again = "queue" if what == QUEUEING else "import"
    return f"{again} it again, or: mmtui purge --yes"


def is_under_way(text: str) -> bool:
    """Whether that may still go on: by the process, or on another machine, whose processes are not seen here."""
    found = _REASON.fullmatch(text)
    if found is None:
        return False
    return found[3] != socket.gethostname() or lives(int(found[2]))


def lives(process: int) -> bool:
    """Whether there is a process of this number on this machine, whoever it is now."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def is_abandoned(text: str) -> bool:
    """Whether the process that made the row has ended before it was done."""
    return is_unfinished(text) and not is_under_way(text)


def sweep(home: Home) -> int:
    """``remove_abandoned``, for who has no database open; how many there were."""
    from mmtui.store.db import Database

    database = Database(home)
    try:
        return remove_abandoned(database, home)
    finally:
        database.close()


def remove_abandoned(database: Database, home: Home) -> int:
    """Remove what killed processes of this machine have left; of how many runs."""
    found = abandoned(home)
    for run_id in found:
        remove(database, home, run_id)
    return len(found)


def abandoned(home: Home) -> list[int]:
    """Runs that are not whole, and never will be."""
    from mmtui.store.queries import trash  # verbs that only ask load this module, and not that one

    with reading(home) as reader:
        found = trash.being_made(reader)
    return [run_id for run_id, text in found if is_abandoned(text)]


def remove(database: Database, home: Home, run_id: int) -> None:
    """Remove the rows of a run that is not whole, and the folder unless its rows were made from that; one that is whole
    stays."""
    from mmtui.store.runs import forget_run
    from mmtui.store.tables import Run

    with database.write() as session:
        run = session.get(Run, run_id, populate_existing=True)
        if run is None or not is_unfinished(run.reason):
            return
        # The folder first: rows that are left are removed next time, a folder without rows is taken for a run.
        if not run.reason.startswith(f"its {REBUILD} "):
            for folder in (home.run(str(run_id)).root, home.runs / f"{DRAFT}{run_id}"):
                shutil.rmtree(folder, ignore_errors=True)
        forget_run(session, run_id)


def hide(session: Session, run_id: int, what: str) -> None:
    """Hide a run until ``show``: it has just been inserted, and more is to come."""
    from mmtui.store.runs import read_run

    run = read_run(session, run_id)
    run.deleted_at, run.reason = time.time(), reason(what)
    session.add(run)


def show(session: Session, run_id: int) -> None:
    """The run is whole."""
    from mmtui.store.runs import read_run

    run = read_run(session, run_id)
    run.deleted_at = None
    run.reason = "" if is_unfinished(run.reason) else run.reason
    session.add(run)
    session.flush()


def show_all(session: Session, run_ids: Sequence[int], why: str = "") -> None:
    """Runs are whole, all in one moment.

    Args:
        why: their reason from now on.
    """
    from mmtui.store.write import visibility

    visibility.show(session, run_ids, why)
