"""Somebody sets the clock, forward or back: durations and deadlines stay what they were.

The clock of one process alone is set: the machine's belongs to everybody.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mmtui.services import queue, supervisors
from mmtui.services.queue_state import Queue
from mmtui.store import clock as clocks
from mmtui.store.db import Database
from mmtui.store.runs import begin_attempt, delayed_text, seconds_taken
from mmtui.supervisor.loop import Supervisor
from tests.waiting import until

if TYPE_CHECKING:
    Workshop = Any

pytestmark = pytest.mark.e2e

HOUR = 3600.0
JUMPS = pytest.mark.parametrize("jump", [2 * HOUR, -2 * HOUR, 10 * 365 * 24 * HOUR], ids=["+2h", "-2h", "+10y"])
SETTABLE = """
import pathlib, time
_real, _file = time.time, pathlib.Path({file!r})
def _time():
    return _real() + (float(_file.read_text()) if _file.exists() else 0.0)
time.time = _time
"""


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Callable[[float], dict[str, str]]]:
    """Sets the clock of supervisors that are started with the environment which it returns."""
    folder, file = tmp_path / "site", tmp_path / "jump"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SETTABLE.format(file=str(file)))

    def put(seconds: float) -> dict[str, str]:
        file.with_suffix(".new").write_text(repr(seconds))
        file.with_suffix(".new").rename(file)
        return {"PYTHONPATH": str(folder)}

    return put


@pytest.fixture
def supervisor(workshop: Workshop) -> Iterator[Supervisor]:
    """One that ticks when it is told to."""
    made = Supervisor(workshop.home)
    yield made
    made.database.close()
    made.reader.close()


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets this process's clock."""
    real = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: real() + seconds)


def noticed(workshop: Workshop) -> None:
    """Wait until the supervisor has seen that the clock was set, and has gone on."""
    workshop.until(lambda: "the clock was set by" in workshop.home.supervisor_log.read_text(), "the clock is looked at")


@JUMPS
def test_time_limit_ends_no_run_that_has_not_trained_so_long(workshop: Workshop, clock: Any, jump: float) -> None:
    run_id = workshop.add(waits=True, terms={"time_limit": HOUR})
    workshop.start(**clock(0.0))
    workshop.until_state(run_id, "running")
    clock(jump)
    noticed(workshop)
    workshop.let_end(run_id)
    workshop.until_state(run_id, "succeeded", "cancelled")
    assert "cancel" not in [row[0] for row in workshop.sql("SELECT event FROM transitions")]
    (taken,) = workshop.sql("SELECT ended_at - spawned_at FROM attempts")[0]
    assert 0 <= taken < HOUR


@JUMPS
def test_time_limit_ends_a_run_that_has_trained_so_long(workshop: Workshop, clock: Any, jump: float) -> None:
    run_id = workshop.add(waits=True, terms={"time_limit": 5.0})
    workshop.start(**clock(0.0))
    workshop.until_state(run_id, "running")
    clock(jump)
    noticed(workshop)
    workshop.until_state(run_id, "cancelled")
    assert "time limit" in workshop.sql("SELECT group_concat(reason) FROM transitions")[0][0]


@JUMPS
def test_clock_that_is_set_while_no_supervisor_runs_ends_no_trainer(
    workshop: Workshop, clock: Any, jump: float
) -> None:
    run_id = workshop.add(waits=True, terms={"time_limit": HOUR})
    workshop.start(**clock(0.0))
    workshop.until_state(run_id, "running")
    workshop.kill()
    workshop.start(**clock(jump))
    noticed(workshop)
    workshop.let_end(run_id)
    workshop.until_state(run_id, "succeeded", "cancelled")
    assert "cancel" not in [row[0] for row in workshop.sql("SELECT event FROM transitions")]
    assert workshop.row(run_id).attempt == 1
    (taken,) = workshop.sql("SELECT ended_at - spawned_at FROM attempts")[0]
    assert 0 <= taken < HOUR


@JUMPS
def test_budget_counts_what_was_trained(
    workshop: Workshop, supervisor: Supervisor, put: Callable[[float], None], jump: float
) -> None:
    queue.set_budget(workshop.home, "study", 1.0)
    run_id = workshop.add(waits=True, terms={"group": "study"})
    until(lambda: workshop.row(run_id).state == "running", meanwhile=supervisor.tick)
    put(jump)
    supervisor.tick()
    for rules in (supervisor.queue.rules(), Queue(workshop.home, supervisor.reader).rules()):
        assert 0 <= rules.spent["study"] < 0.5
    with supervisor.database.write() as session:
        assert 0 <= seconds_taken(session, int(run_id)) < HOUR


@JUMPS
def test_run_that_backs_off_waits_no_longer_and_no_shorter(
    workshop: Workshop,
    supervisor: Supervisor,
    put: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    jump: float,
) -> None:
    for module in ("outcome", "clock"):
        monkeypatch.setattr(f"mmtui.supervisor.{module}.BACK_OFF_SECONDS", (600.0,))
    run_id = workshop.add(die_at=[6], save_every=1000)
    until(lambda: workshop.row(run_id).attempt == 1, meanwhile=supervisor.tick)
    until(lambda: workshop.row(run_id).state == "queued", meanwhile=supervisor.tick)
    put(jump)
    supervisor.tick()
    (not_before,) = workshop.sql("SELECT not_before FROM runs")[0]
    assert 300 < not_before - time.time() <= 600


@JUMPS
def test_delay_of_an_hour_is_an_hour(
    workshop: Workshop, supervisor: Supervisor, put: Callable[[float], None], jump: float
) -> None:
    run_id = workshop.add(terms={"not_before": time.time() + HOUR})
    supervisor.tick()
    put(jump)
    supervisor.tick()
    assert workshop.row(run_id).state == "queued"
    not_before, reason = workshop.sql("SELECT not_before, reason FROM runs")[0]
    assert HOUR / 2 < not_before - time.time() <= HOUR
    assert reason == delayed_text(not_before)


def test_delay_that_was_asked_for_after_the_clock_was_set_is_left_alone(
    workshop: Workshop, put: Callable[[float], None]
) -> None:
    """No supervisor ran when it was set, so the next one cannot know which delays are older."""
    before = Supervisor(workshop.home)
    before.tick()
    before.database.close()
    before.reader.close()
    put(2 * HOUR)
    workshop.add(terms={"not_before": time.time() + HOUR})
    after = Supervisor(workshop.home)
    after.tick()
    (not_before,) = workshop.sql("SELECT not_before FROM runs")[0]
    assert HOUR / 2 < not_before - time.time() <= HOUR
    after.database.close()
    after.reader.close()


@JUMPS
def test_run_stalls_only_after_silence(
    workshop: Workshop,
    supervisor: Supervisor,
    put: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    jump: float,
) -> None:
    run_id = workshop.add(waits=True)

    def silent() -> bool:
        """Whether all has been read that it says before it waits."""
        supervisor.tick()
        return bool(workshop.sql("SELECT 1 FROM metrics WHERE step = 9"))

    until(silent)
    put(jump)
    supervisor.tick()
    assert not workshop.row(run_id).reason
    monkeypatch.setattr("mmtui.store.rows.STALLED_SECONDS", 1.0)
    until(lambda: workshop.row(run_id).reason.startswith("stalled: no event for 0 min"))


@JUMPS
def test_job_that_the_cluster_does_not_know_of_yet_has_its_minute(
    workshop: Workshop,
    supervisor: Supervisor,
    put: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    jump: float,
) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\n")
    squeue.chmod(squeue.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    run_id = workshop.add(terms={"launcher": {"kind": "slurm"}})
    database = Database(workshop.home)
    with database.write() as session:
        begin_attempt(session, int(run_id), [], "slurm")
    database.close()
    supervisor.tick()
    put(jump)
    supervisor.tick()
    assert workshop.row(run_id).state == "starting"
    monkeypatch.setattr("mmtui.supervisor.clustering.UNKNOWN_SECONDS", 1.0)
    until(lambda: workshop.row(run_id).state != "starting", meanwhile=lambda: supervisor._reconcile(int(run_id), 1))


@JUMPS
def test_heartbeat_is_as_old_as_it_is(workshop: Workshop, put: Callable[[float], None], jump: float) -> None:
    run_id = workshop.add(waits=True)
    pid = workshop.start()
    workshop.until_state(run_id, "running")
    os.kill(pid, signal.SIGSTOP)
    try:
        put(jump)
        age = supervisors.status(workshop.home).heartbeat_age
        assert age is not None
        assert age < HOUR
        until(lambda: 1.0 < (supervisors.status(workshop.home).heartbeat_age or 0.0) < HOUR, "it grows old")
    finally:
        os.kill(pid, signal.SIGCONT)


def test_machine_that_slept_leaves_a_trainer_the_time_that_it_was_promised(
    workshop: Workshop, supervisor: Supervisor, put: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes on meanwhile, and so does the one that nobody sets; only the trainer does not."""
    run_id = workshop.add(waits=True, deaf=True)
    until(lambda: workshop.row(run_id).state == "running", meanwhile=supervisor.tick)
    queue.cancel(workshop.home, run_id)
    supervisor.tick()
    real = clocks.steady
    monkeypatch.setattr(clocks, "steady", lambda: real() + HOUR)
    put(HOUR)
    supervisor.tick()
    assert workshop.row(run_id).state == "stopping"
    kill_at, spawned_at = workshop.sql("SELECT kill_at, spawned_at FROM attempts")[0]
    assert 0 < kill_at - time.time() <= 30
    assert time.time() - spawned_at >= HOUR, "it held its place"


def test_machine_that_was_off_has_not_trained_meanwhile(workshop: Workshop, supervisor: Supervisor) -> None:
    run_id = workshop.add(steps=10)
    began = time.time() - 100 * HOUR
    with supervisor.database.write() as session:
        begin_attempt(session, int(run_id), ["cpu:0"], "here", began)
    workshop.sql_write("UPDATE attempts SET pid = 1, pid_identity = '12345678:1'")
    events = workshop.home.run(run_id).events(1)
    events.parent.mkdir(parents=True)
    events.touch()
    os.utime(events, (began + 60, began + 60))
    supervisor.tick()
    assert workshop.sql("SELECT round(ended_at - spawned_at) FROM attempts WHERE number = 1") == [(60.0,)]


def test_attempt_without_a_trainer_takes_no_time(workshop: Workshop, supervisor: Supervisor) -> None:
    run_id = workshop.add(code={"digest": "0123456789abcdef"}, terms={"group": "study"})
    (workshop.home.code / "0123456789abcdef").symlink_to(workshop.home.code / workshop.code)
    supervisor.tick()
    assert workshop.row(run_id).state == "failed"
    assert workshop.sql("SELECT ended_at IS NOT NULL FROM attempts") == [(1,)]
