"""Imports on their way: their runs lie in the trash until all of them is here, and whoever killed one finds no trace.

What a killed import leaves is removed by the next one, and by ``mmtui purge``; ``mmtui restore`` refuses it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket

from mmtui.paths import Home
from mmtui.store.db import Database
from mmtui.store.reader import Reader
from mmtui.store.runs import forget_run

_REASON = re.compile(r"its import has not finished \(process ([0-9]{1,10}) on (.*)\)")


def reason() -> str:
    """What the row of a run says while this process imports it."""
    return f"its import has not finished (process {os.getpid()} on {socket.gethostname()})"


def is_unfinished(text: str) -> bool:
    """Whether a row's reason is that of a run whose import has not finished, or was killed."""
    return _REASON.fullmatch(text) is not None


def is_under_way(text: str) -> bool:
    """Whether its import may still go on: by the process, or on another machine, whose processes are not seen here."""
    found = _REASON.fullmatch(text)
    if found is None:
        return False
    return found[2] != socket.gethostname() or _lives(int(found[1]))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def remove_abandoned(database: Database, home: Home) -> None:
    """Remove what killed imports of this machine have left."""
    with Reader(home) as reader:
        rows = reader.query(
            "SELECT id, reason FROM runs WHERE deleted_at IS NOT NULL AND reason LIKE 'its import has%'"
        )
    for run_id, text in rows:
        if is_unfinished(str(text)) and not is_under_way(str(text)):
            remove(database, home, int(run_id))


def remove(database: Database, home: Home, run_id: int) -> None:
    """Remove a run that is not finished: its folder, then its rows."""
    shutil.rmtree(home.run(str(run_id)).root, ignore_errors=True)
    with database.write() as session:
        forget_run(session, run_id)
