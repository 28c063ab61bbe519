"""A real run in two attempts: the first was killed between two checkpoints, the second was stopped by a crash."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import queue
from mmtui.services.ingest import ingest_file
from mmtui.services.runs import get_run
from mmtui.services.trust import startable
from mmtui.store.db import Database
from mmtui.store.runs import begin_attempt, transition
from mmtui.supervisor.launchers import local
from tests.event_lines import event_lines
from tests.waiting import until

KILLED_AT, CRASHED_AT = 28, 45
OVERRIDES = ("segment.steps=100000", "runtime.threads=1")


def crashed_run(home: Home) -> str:
    """Train ``shapes_smoke``, kill it, resume it, let it crash; everything is in the database afterwards."""
    run_id = queue.enqueue(home, "shapes_smoke", list(OVERRIDES), name="crashed")
    attempt(home, run_id, KILLED_AT, signal.SIGKILL, RunEvent.VANISHED)
    attempt(home, run_id, CRASHED_AT, signal.SIGABRT, RunEvent.EXIT_ERROR)
    return run_id


def attempt(home: Home, run_id: str, step: int, number: signal.Signals, end: RunEvent) -> None:
    """One attempt that a signal ends at a step of the whole run."""
    database = Database(home)
    try:
        with database.write() as session:
            tries = begin_attempt(session, int(run_id), ["cpu:0"], "box")
        code = startable(home, run_id, get_run(home, run_id).code)
        child = local.start(home, int(run_id), tries, ["cpu:0"], code, probe=False)
        events = home.run(run_id).events(tries)
        until(
            lambda: child.poll() is not None or (events.exists() and reached(home, run_id, tries) >= step),
            f"step {step} of the trainer",
            lambda: events.read_text()[-2000:] if events.exists() else "no event",
        )
        assert child.poll() is None, "the trainer has ended"
        os.kill(child.pid, number)
        child.wait()
        ingest_file(database, events, int(run_id), tries, 0)
        with database.write() as session:
            transition(session, int(run_id), end, ended_at=time.time())
            if end is RunEvent.VANISHED:
                transition(session, int(run_id), RunEvent.REQUEUE)
    finally:
        database.close()


def events_of(home: Home, run_id: str, tries: int) -> list[dict[str, Any]]:
    """All events of an attempt."""
    return event_lines(home.run(run_id).events(tries))


def reached(home: Home, run_id: str, tries: int) -> int:
    """Steps of the whole run that have been logged."""
    return max((e["global_step"] for e in events_of(home, run_id, tries) if e["kind"] == "metrics"), default=0)
