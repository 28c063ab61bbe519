"""Several processes on one database: no lost update, no 'locked', exactly one winner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import runs
from mmtui.store.db import Database

INCREMENT = """
from mmtui.paths import Home
from mmtui.store.db import Database
from mmtui.store.runs import read_run
database = Database(Home.from_environment())
for _ in range(100):
    with database.write() as session:
        run = read_run(session, 1)
        run.priority += 1
        session.add(run)
database.close()
"""

# Half of the processes are supervisors that claim, half people who cancel. They begin at the same moment and go
# through all runs from opposite ends.
CLAIM_OR_CANCEL = """
import sys, time
from mmtui.domain.states import RunEvent, RunState
from mmtui.errors import RefusedError
from mmtui.paths import Home
from mmtui.services import queue
from mmtui.store.db import Database
from mmtui.store.runs import begin_attempt, transition
number = int(sys.argv[1])
home = Home.from_environment()
database = Database(home)
ids = range(1, 201)
won = []
(home.root / f"ready{number}").touch()
while len(list(home.root.glob("ready*"))) < 4:
    time.sleep(0.001)
for run_id in reversed(ids) if number % 2 else ids:
    time.sleep(0.001)  # SQLite's lock is not fair: without a breath the first process would do all it has to do
    try:
        with database.write() as session:
            if number % 2:
                transition(session, run_id, RunEvent.CANCEL, actor="user")
            else:
                begin_attempt(session, run_id, ["cpu:0"], "here")
        won.append(run_id)
    except RefusedError:
        pass
print(*won)
"""


def test_write_four_processes_lose_no_update(
    add_run: Callable[..., int], run_together: Callable[..., list[str]], sql: Callable[..., list[Any]]
) -> None:
    add_run()
    run_together(INCREMENT, 4)
    assert sql("SELECT priority FROM runs") == [(400,)]


def test_claim_against_cancel_every_queued_run_has_one_winner(
    home: Home,
    database: Database,
    add_run: Callable[..., int],
    run_together: Callable[..., list[str]],
    sql: Callable[..., list[Any]],
) -> None:
    for _ in range(200):
        add_run()
    won = [[int(word) for word in output.split()] for output in run_together(CLAIM_OR_CANCEL, 4)]
    claimed, cancelled = sorted(won[0] + won[2]), sorted(won[1] + won[3])
    # A started run can still be cancelled (it then stops); a cancelled one can never be started.
    assert len(claimed) == len(set(claimed))
    assert len(cancelled) == len(set(cancelled))
    assert cancelled == list(range(1, 201))
    states = dict(sql("SELECT id, state FROM runs"))
    assert {run_id for run_id, state in states.items() if state == "stopping"} == set(claimed)
    assert {run_id for run_id, state in states.items() if state == "cancelled"} == set(range(1, 201)) - set(claimed)
    assert sql("SELECT count(*) FROM attempts") == [(len(claimed),)]
    assert 0 < len(claimed) < 200, "the processes did not meet; the test proves nothing"
    # The audit tells the same story: one create, and one row for every transition won.
    assert sql("SELECT count(*) FROM transitions") == [(200 + len(claimed) + len(cancelled),)]


def test_transition_that_fails_leaves_no_audit_row(
    database: Database, add_run: Callable[..., int], sql: Callable[..., list[Any]], home: Home
) -> None:
    from mmtui.domain.states import IllegalTransitionError, RunEvent
    from mmtui.store.runs import transition

    run_id = add_run()
    with pytest.raises(IllegalTransitionError), database.write() as session:
        transition(session, run_id, RunEvent.RESUME)
    assert sql("SELECT event FROM transitions") == [("create",)]
    assert runs.get_run(home, "1").row.state == "queued"


@pytest.mark.parametrize(("event", "verb"), [("pause", "resume"), ("vanished", "retry")])
def test_run_that_is_put_back_has_not_ended(
    database: Database, add_run: Callable[..., int], home: Home, event: str, verb: str
) -> None:
    from mmtui.domain.states import RunEvent
    from mmtui.store.runs import apply_verb, begin_attempt, transition

    run_id = add_run()
    with database.write() as session:
        begin_attempt(session, run_id, ["cpu:0"], "here")
        transition(session, run_id, RunEvent(event))
        if event == "pause":
            transition(session, run_id, RunEvent.EXIT_STOPPED)
        session.connection().exec_driver_sql("UPDATE runs SET ended_at = 5.0")
    assert runs.get_run(home, "1").row.ended_at == 5.0
    with database.write() as session:
        apply_verb(session, run_id, verb)
    row = runs.get_run(home, "1").row
    assert (row.state, row.ended_at) == ("queued", None)
