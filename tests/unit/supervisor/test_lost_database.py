"""The database is deleted or replaced under a supervisor and its trainers: nothing is lost, no slot is given twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mmtui.errors import ExitCode, RefusedError
from mmtui.services import doctor, mending, queue
from mmtui.services.register import rebuild
from mmtui.store.db import backup
from mmtui.store.reader import Reader
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from mmtui.paths import Home

    Workshop = Any

pytestmark = pytest.mark.e2e


def delete(home: Home) -> None:
    home.database.unlink()


def delete_all(home: Home) -> None:
    for file in home.root.glob("mmtui.db*"):
        file.unlink()


def replace_by_nothing(home: Home) -> None:
    empty = home.root / "empty"
    empty.touch(mode=0o600)
    empty.rename(home.database)


def replace_by_copy(home: Home) -> None:
    """By one that was made when nothing ran."""
    for file in home.root.glob("mmtui.db-*"):
        file.unlink()
    (home.root / "copy.db").rename(home.database)


def delete_log(home: Home) -> None:
    home.database.with_name("mmtui.db-wal").unlink()


WAYS = pytest.mark.parametrize("take", [delete, delete_all, replace_by_nothing, replace_by_copy])


def shape(workshop: Workshop) -> tuple[str, str, int]:
    """A run that trains and one that waits behind it, and the pid of the trainer; there is a copy from before."""
    running, waiting = workshop.enqueue(waits=True), workshop.enqueue()
    backup(workshop.home.database, workshop.home.root / "copy.db")
    workshop.start()
    workshop.until_state(running, "running")
    workshop.until(lambda: workshop.sql("SELECT 1 FROM metrics WHERE step = 9"), "it trains")
    return running, waiting, workshop.trainer(running)


def said(workshop: Workshop, *words: str) -> str:
    """What a verb tells the person, on stderr."""
    environment = {**os.environ, "MMTUI_HOME": str(workshop.home.root)}
    done = subprocess.run(
        [sys.executable, "-m", "mmtui", *words], capture_output=True, text=True, env=environment, check=False
    )
    return done.stderr


def ended_once(workshop: Workshop, run_id: str) -> None:
    """The run has one attempt, all of whose events are stored, once."""
    assert workshop.row(run_id).attempt == 1
    told, stored = workshop.steps_told_and_stored(run_id)
    assert told == stored == [(1, step) for step in range(1, 21)]
    assert workshop.sql("SELECT count(*) FROM events WHERE run_id = ? AND kind = 'run_started'", run_id) == [(1,)]


@pytest.mark.parametrize("take", [delete, delete_all, replace_by_nothing, replace_by_copy, delete_log])
def test_supervisor_leaves_when_its_database_is_taken_away_and_says_so(
    workshop: Workshop, take: Callable[[Home], None]
) -> None:
    _, _, trainer = shape(workshop)
    pid = workshop.supervisor.pid
    take(workshop.home)
    assert workshop.supervisor.wait(PATIENCE) == ExitCode.UNREACHABLE
    assert workshop.trainers() == [trainer]
    left = f"under the supervisor (pid {pid}), which has left; trainers go on; run: mmtui doctor --fix"
    assert left in said(workshop, "daemon", "status")
    gone = "is gone, but folders of runs are there (2)\n  to make it again from them: mmtui doctor --fix"
    refused = take not in (replace_by_copy, delete_log)
    assert (gone if refused else left) in said(workshop, "queue")
    found = [item for item in doctor.checks(workshop.home) if item.name == "supervisor"]
    assert [(item.ok, item.fix) for item in found] == [(False, "mmtui doctor --fix")]
    if refused:
        assert "is gone, but folders of runs are there (2)" in said(workshop, "daemon", "start")
    else:
        assert "which has left" in said(workshop, "daemon", "start")
        assert not said(workshop, "daemon", "status")


@WAYS
def test_run_goes_on_and_ends_once_after_doctor_and_a_new_supervisor(
    workshop: Workshop, take: Callable[[Home], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_SETTLED", -1.0)
    running, waiting, trainer = shape(workshop)
    take(workshop.home)
    workshop.supervisor.wait(PATIENCE)
    list(mending.fix(workshop.home))
    workshop.until_state(running, "running")
    assert workshop.trainer(running) == trainer
    if workshop.row(waiting).state == "held":
        queue.release(workshop.home, waiting)
    workshop.until(lambda: "CPU slot in use" in workshop.row(waiting).reason, "the slot is in use")
    assert workshop.trainers() == [trainer]
    workshop.let_end(running)
    workshop.until_state(running, "succeeded")
    ended_once(workshop, running)
    workshop.until_state(waiting, "succeeded")
    ended_once(workshop, waiting)


def test_new_supervisor_takes_over_what_no_doctor_has_looked_at(workshop: Workshop) -> None:
    """What is queued next starts a supervisor at once; a trainer of which the database knows nothing has the slot."""
    running, _, trainer = shape(workshop)
    replace_by_copy(workshop.home)
    workshop.supervisor.wait(PATIENCE)
    later = workshop.enqueue()
    assert int(later) > int(running)
    workshop.start()
    workshop.until(lambda: workshop.sql("SELECT 1 FROM runs WHERE id = ?", running), "it has a row")
    workshop.until_state(running, "running")
    assert workshop.trainer(running) == trainer
    workshop.let_end(running)
    workshop.until_state(later, "succeeded")
    workshop.until_state(running, "succeeded")
    ended_once(workshop, running)
    spawned = workshop.sql("SELECT spawned_at FROM attempts WHERE run_id = ?", later)[0]
    assert workshop.sql("SELECT ended_at FROM attempts WHERE run_id = ?", running)[0] <= spawned


def test_rebuild_says_of_a_run_whose_trainer_lives_that_it_runs(workshop: Workshop) -> None:
    running, waiting, trainer = shape(workshop)
    delete_all(workshop.home)
    workshop.supervisor.wait(PATIENCE)
    assert [(one.run_id, one.state) for one in rebuild(workshop.home)] == [(running, "running"), (waiting, "held")]
    assert workshop.sql("SELECT pid, ended_at FROM attempts") == [(trainer, None)]
    assert workshop.row(running).gpus == ("cpu:0",)
    with pytest.raises(RefusedError):
        queue.retry(workshop.home, running)


def test_trainer_of_a_folder_that_cannot_be_read_keeps_its_slot_until_it_ends(workshop: Workshop) -> None:
    running, _, trainer = shape(workshop)
    delete_all(workshop.home)
    workshop.supervisor.wait(PATIENCE)
    workshop.home.run(running).manifest.write_text("no manifest")
    assert [bool(one.run_id) for one in rebuild(workshop.home)] == [False, True]
    later = workshop.enqueue()
    workshop.start()
    workshop.until(lambda: "CPU slot in use" in workshop.row(later).reason, "the slot is in use")
    assert workshop.trainers() == [trainer]
    workshop.let_end(running)
    workshop.until_state(later, "succeeded")


def test_retry_of_a_run_that_doctor_took_for_interrupted_starts_no_second_trainer(workshop: Workshop) -> None:
    """As an older mmtui left it: the row says that the run was interrupted, and its trainer lives."""
    running, _, trainer = shape(workshop)
    workshop.kill()
    workshop.sql_write("UPDATE runs SET state = 'interrupted' WHERE id = ?", running)
    workshop.sql_write("UPDATE attempts SET ended_at = 1, outcome = 'vanished' WHERE run_id = ?", running)
    queue.retry(workshop.home, running)
    workshop.start()
    workshop.until_state(running, "running")
    assert workshop.trainers() == [trainer]
    workshop.let_end(running)
    workshop.until_state(running, "succeeded")
    ended_once(workshop, running)


def test_home_that_is_renamed_under_a_supervisor_is_served_by_the_next_one(
    workshop: Workshop,
) -> None:
    running, _, trainer = shape(workshop)
    old = workshop.home.root
    old.rename(old.with_name("moved"))
    try:
        assert workshop.supervisor.wait(PATIENCE) == 0
        assert not old.exists(), "nothing is made in its place"
        os.kill(trainer, 0)
    finally:
        old.with_name("moved").rename(old)
    workshop.start()
    workshop.let_end(running)
    workshop.until_state(running, "succeeded")
    ended_once(workshop, running)


def test_home_that_another_one_takes_the_place_of_is_left_alone(workshop: Workshop) -> None:
    shape(workshop)
    old = workshop.home.root
    old.rename(old.with_name("moved"))
    try:
        workshop.home.create()
        workshop.home.lock.touch()
        assert workshop.supervisor.wait(PATIENCE) == 0
        assert not workshop.home.database.exists()
    finally:
        shutil.rmtree(old)
        old.with_name("moved").rename(old)


def test_backups_and_readers_are_no_reason_to_leave(workshop: Workshop) -> None:
    """Checkpoints of the log, copies, and others who come and go, leave the files what they are."""
    first = workshop.enqueue()
    workshop.start()
    workshop.until_state(first, "succeeded")
    for number in range(3):
        backup(workshop.home.database, workshop.home.root / f"{number}.db")
        workshop.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        with Reader(workshop.home) as reader:
            reader.ids()
        workshop.until_state(workshop.enqueue(), "succeeded")
    assert workshop.supervisor.poll() is None
