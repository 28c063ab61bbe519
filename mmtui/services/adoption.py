"""A run whose trainer lives, whatever its row says: the row is brought up to it, so that a supervisor takes it over."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

from mmtui.domain.states import ACTIVE_STATES, RunEvent, RunState
from mmtui.errors import RefusedError
from mmtui.paths import Home, RunPaths
from mmtui.services.ingest import ingest_file
from mmtui.services.trainers import Living
from mmtui.store.db import Database
from mmtui.store.runs import add_attempt, end_attempts, read_run, transition
from mmtui.store.tables import Attempt, Run

if TYPE_CHECKING:
    from sqlmodel import Session

_TO_QUEUED = {
    RunState.HELD: RunEvent.RELEASE,
    RunState.PAUSED: RunEvent.RESUME,
    RunState.FAILED: RunEvent.RETRY,
    RunState.CANCELLED: RunEvent.RETRY,
    RunState.INTERRUPTED: RunEvent.RETRY,
}


def is_known(session: Session, found: Living) -> bool:
    """Whether the database tells of a run that its trainer lives: then nothing has to be done."""
    run = session.get(Run, found.run_id, populate_existing=True)
    attempt = session.get(Attempt, (found.run_id, found.number), populate_existing=True)
    if run is None or attempt is None:
        return False
    return run.state in ACTIVE_STATES and run.attempt == found.number and attempt.ended_at is None


def adopt(database: Database, home: Home, found: Living) -> bool:
    """Bring the row of a run up to its living trainer: active, with the attempt and its slots; whether it was not so.

    The row must exist. Where the database is older than the run, what earlier attempts wrote is read first.

    Raises:
        OSError: the events of an earlier attempt cannot be read.
        RefusedError: the run has succeeded: this trainer is none of it.
        UnreachableError: the database cannot be written.
    """
    with database.write() as session:
        if is_known(session, found):
            return False
    _read_earlier(database, home.run(str(found.run_id)), found)
    with database.write(durable=True) as session:
        _revive(session, found)
        _start(session, found)
    return True


def _read_earlier(database: Database, paths: RunPaths, found: Living) -> None:
    """All events of the attempts before, so that what they did is not missed for ever."""
    for number in range(1, found.number):
        events = paths.events(number)
        if not events.exists():
            continue
        times = events.stat()
        with database.write() as session:
            known = session.get(Attempt, (found.run_id, number))
            if known is None:
                began, ended, host = times.st_ctime, times.st_mtime, socket.gethostname()
                add_attempt(session, found.run_id, number, began=began, ended=ended, host=host)
            offset = 0 if known is None else known.ingested
        ingest_file(database, events, found.run_id, number, offset)


def _revive(session: Session, found: Living) -> None:
    """The attempt's row, as one that goes on; those before it have ended."""
    attempt = session.get(Attempt, (found.run_id, found.number), populate_existing=True)
    if attempt is None:
        attempt = Attempt(run_id=found.run_id, number=found.number, spawned_at=found.since, host=socket.gethostname())
    end_attempts(session, found.run_id, found.since, but=found.number)
    attempt.ended_at = attempt.exit_code = None
    # What it said itself stands: it may be about to leave.
    attempt.outcome = "" if attempt.outcome == "vanished" else attempt.outcome
    attempt.pid, attempt.pid_identity = found.trainer.pid, found.trainer.identity
    session.add(attempt)
    session.flush()


def _start(session: Session, found: Living) -> None:
    """Along the table to a run that trains; one that was told to stop or to pause stays so."""
    run = read_run(session, found.run_id)
    reason = f"its trainer (pid {found.trainer.pid}) was alive: taken over"
    state = RunState(run.state)
    place = {"attempt": found.number, "gpus": json.dumps(list(found.slots)), "ended_at": None, "error": ""}
    if len(found.slots) > 1:
        place["wanted"] = float(len(found.slots))
    if state is RunState.SUCCEEDED:
        raise RefusedError(f"run {found.run_id} has succeeded, and a trainer of it (pid {found.trainer.pid}) lives")
    if state in _TO_QUEUED:
        state = transition(session, found.run_id, _TO_QUEUED[state], reason=reason)
    if state is RunState.QUEUED:
        transition(session, found.run_id, RunEvent.START, reason=reason, started_at=run.started_at or found.since)
        if run.last_event_at is not None:
            transition(session, found.run_id, RunEvent.STARTED)
    run = read_run(session, found.run_id)
    for name, value in place.items():
        setattr(run, name, value)
    session.add(run)
