"""The supervisor with real processes: queue, adoption, endings, and what must never happen."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mmtui.errors import ExitCode, RefusedError, UnreachableError
from mmtui.services import queue, runs, supervisors
from mmtui.supervisor import process
from mmtui.supervisor.loop import Supervisor
from mmtui.supervisor.outcome import BACK_OFF_SECONDS
from tests.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable

    Workshop = Any

pytestmark = pytest.mark.e2e


def test_queue_runs_in_order_one_at_a_time_and_audits_each_step(workshop: Workshop) -> None:
    first, second = workshop.add(), workshop.add()
    workshop.start()
    workshop.until_state(second, "succeeded")
    audit = workshop.sql('SELECT run_id, event, "before", "after" FROM transitions ORDER BY id')
    expected = [
        ("create", "", "queued"),
        ("start", "queued", "starting"),
        ("started", "starting", "running"),
        ("exit_ok", "running", "succeeded"),
    ]
    for run_id in (first, second):
        assert [row[1:] for row in audit if row[0] == int(run_id)] == expected
    started = [row[0] for row in audit if row[1] == "start"]
    assert started == [int(first), int(second)]
    assert audit.index((int(first), "exit_ok", "running", "succeeded")) < audit.index(
        (int(second), "start", "queued", "starting")
    )
    row = workshop.row(first)
    assert (row.progress, row.metrics["loss"], row.ended_at is not None) == (1.0, 0.05, True)
    told, stored = workshop.steps_told_and_stored(first)
    assert told == stored == [(1, step) for step in range(1, 21)]


def test_two_slots_run_two_at_once(workshop: Workshop) -> None:
    ids = [workshop.add(steps=1000) for _ in range(3)]
    workshop.start(MMTUI_CPU_SLOTS="2")
    workshop.until(lambda: [workshop.row(i).state for i in ids] == ["running", "running", "queued"], "two run")
    assert workshop.row(ids[0]).gpus != workshop.row(ids[1]).gpus
    workshop.until(lambda: workshop.row(ids[2]).reason == "waiting: 2 of 2 CPU slots in use", "the third says why")


def test_second_supervisor_is_refused_in_one_sentence(workshop: Workshop) -> None:
    pid = workshop.start()
    done = subprocess.run([sys.executable, "-m", "mmtui.supervisor"], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.REFUSED
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"pid {pid}" in done.stderr


def test_lock_file_of_a_dead_supervisor_is_no_supervisor(workshop: Workshop) -> None:
    first = workshop.start()
    workshop.kill()
    assert workshop.home.lock.exists()
    assert not supervisors.status(workshop.home).running
    assert workshop.start() != first
    assert supervisors.status(workshop.home).running


def test_lock_held_by_somebody_who_only_asks_does_not_keep_a_supervisor_from_starting(workshop: Workshop) -> None:
    asking = os.open(workshop.home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(asking, fcntl.LOCK_SH)
    release = threading.Timer(0.6, os.close, [asking])
    release.start()
    workshop.start()
    release.join()
    assert supervisors.status(workshop.home).pid == workshop.supervisor.pid


@pytest.mark.parametrize("put", ["garbage", "folder", "newer"])
def test_ensure_says_why_a_supervisor_is_dead_that_cannot_open_the_database(workshop: Workshop, put: str) -> None:
    database = workshop.home.database
    if put == "garbage":
        database.write_bytes(b"no database at all" * 1000)
    elif put == "folder":
        database.mkdir()
    else:
        workshop.add()
        workshop.sql_write("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(UnreachableError) as caught:
        supervisors.ensure(workshop.home)
    assert str(database) in caught.value.message, caught.value.message
    assert not supervisors.status(workshop.home).running


def test_ensure_says_which_program_cannot_be_started(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("no program, and nobody may start it")
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(UnreachableError, match="the supervisor cannot be started: ") as caught:
        supervisors.ensure(workshop.home)
    assert str(program) in caught.value.message and "Permission denied" in caught.value.message
    assert not supervisors.status(workshop.home).running


def test_ensure_of_several_at_once_finds_the_one_that_comes_up(workshop: Workshop) -> None:
    with ThreadPoolExecutor(4) as pool:
        pids = {status.pid for status in pool.map(lambda _: supervisors.ensure(workshop.home), range(4))}
    assert len(pids) == 1


def test_ensure_starts_one_detached_supervisor_and_stop_ends_it(workshop: Workshop) -> None:
    status = supervisors.ensure(workshop.home)
    assert status.running
    assert status.pid is not None
    assert os.getsid(status.pid) == status.pid != os.getsid(0)
    assert supervisors.ensure(workshop.home).pid == status.pid
    assert supervisors.stop(workshop.home)
    assert not supervisors.status(workshop.home).running
    assert not supervisors.stop(workshop.home)


def test_sigterm_to_the_supervisor_leaves_the_trainer_and_the_next_adopts_it(workshop: Workshop) -> None:
    run_id = workshop.add(steps=300, waits=True)
    workshop.start()
    workshop.until_state(run_id, "running")
    pid = workshop.trainer(run_id)
    workshop.supervisor.terminate()
    assert workshop.supervisor.wait(PATIENCE) == 0
    assert workshop.trainers() == [pid]
    workshop.start()
    workshop.let_end(run_id)
    workshop.until_state(run_id, "succeeded")
    assert workshop.trainer(run_id) == pid
    assert workshop.row(run_id).attempt == 1
    told, stored = workshop.steps_told_and_stored(run_id)
    assert told == stored == [(1, step) for step in range(1, 301)]


def test_supervisor_killed_at_random_moments_loses_and_doubles_nothing(workshop: Workshop) -> None:
    ids = [workshop.add(steps=150, seconds_per_step=0.004) for _ in range(4)]
    choose = random.Random(3)
    for _ in range(6):
        workshop.start(MMTUI_CPU_SLOTS="2")
        time.sleep(choose.uniform(0.1, 0.7))
        workshop.kill()
    workshop.start(MMTUI_CPU_SLOTS="2")
    for run_id in ids:
        workshop.until_state(run_id, "succeeded")
        told, stored = workshop.steps_told_and_stored(run_id)
        assert told == stored
        assert [step for _, step in told] == list(range(1, 151)), "a trainer was lost or started twice"


def test_killed_between_spawn_and_commit_the_trainer_is_adopted_not_doubled(workshop: Workshop) -> None:
    run_id = workshop.add(steps=200, seconds_per_step=0.01)
    number = workshop.claim(run_id)
    paths = workshop.home.run(run_id)
    command = [sys.executable, "-m", "engine", "train", "--recipe", str(paths.recipe), "--run-dir", str(paths.root)]
    environment = {**os.environ, "PYTHONPATH": str(workshop.home.code / workshop.code)}
    child = process.spawn(paths.root, number, [*command, "--attempt", str(number)], environment)
    assert workshop.sql("SELECT pid FROM attempts") == [(None,)]
    workshop.start()
    workshop.until(lambda: workshop.sql("SELECT pid FROM attempts") == [(child.pid,)], "it is adopted")
    assert child.wait(PATIENCE) == 0
    workshop.until_state(run_id, "succeeded")
    assert workshop.row(run_id).attempt == 1


def test_killed_before_spawn_the_run_starts_again(workshop: Workshop) -> None:
    run_id = workshop.add()
    workshop.claim(run_id)
    workshop.start()
    workshop.until_state(run_id, "succeeded")
    assert workshop.row(run_id).attempt == 2
    assert [a.outcome for a in runs.get_run(workshop.home, run_id).attempts] == ["vanished", "succeeded"]


def test_pid_used_again_by_another_process_is_neither_adopted_nor_signalled(
    workshop: Workshop, cancel: Callable[..., None]
) -> None:
    innocent = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        stored, filed = workshop.add(steps=2000), workshop.add(steps=2000)
        workshop.claim(stored)
        workshop.sql_write("UPDATE attempts SET pid = ?, pid_identity = '12345678:1'", innocent.pid)
        number = workshop.claim(filed)
        folder = workshop.home.run(filed).attempt(number)
        folder.mkdir(parents=True)
        (folder / "pid").write_text(f"{innocent.pid} 12345678:1\n")
        workshop.start(MMTUI_CPU_SLOTS="2")
        for run_id in (stored, filed):
            workshop.until(lambda run_id=run_id: workshop.row(run_id).attempt == 2, "it was given up")
            cancel(run_id, now=True)
            workshop.until_state(run_id, "cancelled")
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_vanished_trainer_goes_on_from_its_checkpoint(workshop: Workshop) -> None:
    run_id = workshop.add(steps=60, die_at=[17, 44, 0])
    workshop.start()
    workshop.until_state(run_id, "succeeded")
    attempts = runs.get_run(workshop.home, run_id).attempts
    assert [(a.outcome, a.resumed_step) for a in attempts] == [("vanished", 0), ("vanished", 10), ("succeeded", 40)]
    assert [p.step for p in runs.points(workshop.home, run_id, "loss")] == list(range(1, 61))
    told, stored = workshop.steps_told_and_stored(run_id)
    assert told == stored
    assert len(told) == 17 + 34 + 20


def test_trainer_that_always_vanishes_is_given_up_after_five(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BACK_OFF_SECONDS == (0, 2, 4, 8)
    monkeypatch.setattr("mmtui.supervisor.outcome.BACK_OFF_SECONDS", (0, 0.4, 0.8, 1.2))
    # It dies a step earlier or later each time, always before its first checkpoint: that is no progress.
    run_id = workshop.add(steps=60, die_at=[6, 7], save_every=1000)
    supervisor = Supervisor(workshop.home)

    def given_up() -> bool:
        supervisor.tick()
        return bool(workshop.row(run_id).state == "interrupted")

    workshop.until(given_up, "given up")
    row = workshop.row(run_id)
    assert row.attempt == 6  # step 7 in the second attempt was further than ever, so the count began again there
    assert "killed by signal 9" in row.reason
    spawned = [row[0] for row in workshop.sql("SELECT spawned_at FROM attempts ORDER BY number")]
    gaps = [later - earlier for earlier, later in pairwise(spawned)]
    assert (gaps[-3] > 0.4, gaps[-2] > 0.8, gaps[-1] > 1.2) == (True, True, True)
    queue.retry(workshop.home, run_id)
    supervisor.tick()
    assert workshop.row(run_id).attempt == 7, "a person can start it again"
    supervisor.database.close()
    supervisor.reader.close()


def test_children_of_a_dead_trainer_do_not_block_the_next_attempt(workshop: Workshop) -> None:
    run_id = workshop.add(steps=30, die_at=[15, 0], leave_child=True)
    workshop.start()
    workshop.until_state(run_id, "succeeded")
    assert workshop.row(run_id).attempt == 2
    assert workshop.trainers() == []


def test_trainer_that_breaks_before_its_first_event_fails_with_its_last_words(workshop: Workshop) -> None:
    run_id = workshop.add(break_at_import=True)
    workshop.start()
    row = workshop.until_state(run_id, "failed")
    assert row.reason == "the trainer left with code 1: ImportError: no module named \\x1b[31mtorch"
    assert row.attempt == 1


def test_trainer_that_reports_an_error_fails_with_it(workshop: Workshop) -> None:
    run_id = workshop.add(fail="labels/7.png: value 99 is no class")
    workshop.start()
    row = workshop.until_state(run_id, "failed")
    assert row.reason == "labels/7.png: value 99 is no class"
    assert runs.get_run(workshop.home, run_id).error == row.reason


def test_frozen_code_that_was_changed_is_not_run(workshop: Workshop) -> None:
    run_id, good = workshop.add(code={"digest": "0123456789abcdef"}), workshop.add()
    (workshop.home.code / "0123456789abcdef").symlink_to(workshop.home.code / workshop.code)
    workshop.start()
    reason = workshop.until_state(run_id, "failed").reason
    assert "was changed" in reason and "queue the run again" in reason
    workshop.until_state(good, "succeeded")


def test_one_hostile_run_holds_up_no_other(workshop: Workshop) -> None:
    raw = [
        '{"v":1,"seq":9,"t":1,"kind":"metrics","global_step":1e999,"values":{"loss":1}}',
        '{"v":1,"seq":9,"t":1,"kind":"run_started","values":{"stages":[1]}}',
        "no event at all",
    ]
    hostile, other = workshop.add(raw=raw), workshop.add()
    workshop.start(MMTUI_CPU_SLOTS="2")
    workshop.until_state(hostile, "succeeded")
    workshop.until_state(other, "succeeded")
    assert workshop.supervisor.poll() is None


def test_wishes_that_make_no_sense_hold_up_neither_other_wishes_nor_other_runs(workshop: Workshop) -> None:
    first, last = workshop.add(steps=5000), workshop.add()
    workshop.start()
    workshop.until_state(first, "running")
    wish = "INSERT INTO wishes (run_id, t, verb, arguments) VALUES (?, 0, ?, ?)"
    for verb, arguments in (("from the future", "{}"), ("cancel", "no json"), ("cancel", "[1]"), ("resume", "{}")):
        workshop.sql_write(wish, first, verb, arguments)
    queue.cancel(workshop.home, first, now=True)
    workshop.until_state(first, "cancelled")
    workshop.until_state(last, "succeeded")
    assert workshop.sql("SELECT count(*) FROM wishes") == [(0,)]


def test_cancel_of_a_queued_run_needs_no_supervisor(workshop: Workshop, cancel: Callable[..., None]) -> None:
    run_id = workshop.add()
    cancel(run_id)
    assert workshop.row(run_id).state == "cancelled"
    with pytest.raises(RefusedError, match="is cancelled"):
        cancel(run_id)
    queue.retry(workshop.home, run_id)
    queue.hold(workshop.home, run_id)
    assert workshop.row(run_id).state == "held"


def test_cancel_of_a_running_run_lets_it_checkpoint(workshop: Workshop, cancel: Callable[..., None]) -> None:
    run_id = workshop.add(steps=5000, save_every=10_000)
    workshop.start()
    workshop.until_state(run_id, "running")
    cancel(run_id)
    workshop.until_state(run_id, "cancelled")
    assert workshop.sql("SELECT exit_code FROM attempts") == [(143,)], "it left by itself and was not killed"
    assert (workshop.home.run(run_id).root / "checkpoint").exists()
    assert workshop.trainers() == []


def test_cancel_now_kills_a_trainer_that_does_not_listen(workshop: Workshop, cancel: Callable[..., None]) -> None:
    run_id = workshop.add(steps=5000, deaf=True)
    workshop.start()
    workshop.until_state(run_id, "running")
    cancel(run_id)
    workshop.until_state(run_id, "stopping")
    began = time.monotonic()
    cancel(run_id, now=True)  # a second, harder wish shortens the grace of the first, which is of minutes
    workshop.until_state(run_id, "cancelled")
    assert time.monotonic() - began > 2.5, "it had its three seconds"
    assert workshop.sql("SELECT exit_code FROM attempts") == [(-9,)]


def test_pause_survives_a_supervisor_that_dies_while_the_trainer_checkpoints(workshop: Workshop) -> None:
    run_id = workshop.add(steps=400, save_every=10_000, save_seconds=1.5, waits=True)
    workshop.start()
    workshop.until_state(run_id, "running")
    workshop.until(lambda: runs.points(workshop.home, run_id, "loss"), "it trains")
    queue.pause(workshop.home, run_id)
    workshop.until((workshop.home.run(run_id).attempt(1) / "terminated").exists, "the trainer was told")
    workshop.kill()
    workshop.start()  # must not tell it a second time: that would end it without its checkpoint
    workshop.until_state(run_id, "paused")
    assert (workshop.home.run(run_id).root / "checkpoint").exists()
    workshop.let_end(run_id)
    queue.resume(workshop.home, run_id)
    workshop.until_state(run_id, "succeeded")
    assert [p.step for p in runs.points(workshop.home, run_id, "loss")] == list(range(1, 401))


def test_trainer_stopped_by_somebody_else_goes_on(workshop: Workshop) -> None:
    run_id = workshop.add(steps=300, waits=True)
    workshop.start()
    workshop.until_state(run_id, "running")
    os.kill(workshop.trainer(run_id), signal.SIGTERM)
    workshop.until(lambda: workshop.row(run_id).attempt == 2, "the next attempt")
    workshop.let_end(run_id)
    workshop.until_state(run_id, "succeeded")
    assert workshop.row(run_id).attempt == 2
    assert [p.step for p in runs.points(workshop.home, run_id, "loss")] == list(range(1, 301))


def test_idle_supervisor_writes_nothing(workshop: Workshop) -> None:
    run_id = workshop.add()
    workshop.start()
    workshop.until_state(run_id, "succeeded")

    def state() -> dict[str, tuple[int, int]]:
        return {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in workshop.home.root.iterdir() if p.is_file()}

    def quiet() -> bool:
        """Whether nothing is written for a time in which a supervisor looks around many times."""
        before = state()
        time.sleep(2.5)
        return state() == before

    workshop.until(quiet, "a supervisor that writes nothing")  # after the last words of the run
    workshop.until_state(workshop.add(steps=1), "running", "starting", "succeeded")


def test_lock_that_a_dead_supervisor_leaves_to_a_child_fails_no_test(workshop: Workshop) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    code = "import fcntl, sys, time; fcntl.flock(0, fcntl.LOCK_EX); print(flush=True); time.sleep(1000)"
    workshop.home.lock.write_text(json.dumps({"pid": dead.pid, "started_at": 1.0}))
    with workshop.home.lock.open() as lock:
        child = subprocess.Popen([sys.executable, "-c", code], stdin=lock, stdout=subprocess.PIPE)
    with child:
        try:
            assert child.stdout is not None and child.stdout.readline()
            assert supervisors.holder(workshop.home)[0] == dead.pid
            assert not workshop.all_killed(), "somebody has the lock"
        finally:
            child.kill()
    workshop.close()
    assert workshop.all_killed() and supervisors.holder(workshop.home)[0] is None


def test_supervisor_leaves_when_its_directory_is_removed(workshop: Workshop) -> None:
    workshop.start()
    shutil.rmtree(workshop.home.root)
    assert workshop.supervisor.wait(PATIENCE) == 0


def test_files_of_trainers_are_private(workshop: Workshop) -> None:
    run_id = workshop.add()
    before = os.umask(0o022)
    try:
        workshop.start()
        workshop.until_state(run_id, "succeeded")
    finally:
        os.umask(before)
    root = workshop.home.run(run_id).root
    # All but what the test itself wrote.
    modes = {str(p.relative_to(root)): p.stat().st_mode & 0o077 for p in root.rglob("*") if p.name != "recipe.yaml"}
    assert {"attempt", "trainer.lock", "attempts/001/pid", "attempts/001/output.log"} <= modes.keys()
    assert {name: oct(mode) for name, mode in modes.items() if mode} == {}


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 3.2e8])
def test_clock_that_is_set_neither_shortens_nor_stretches_the_time_to_leave(
    workshop: Workshop, cancel: Callable[..., None], monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """The clock of this process alone is set: the machine's belongs to everybody."""
    run_id = workshop.add(steps=100_000, deaf=True)
    supervisor = Supervisor(workshop.home)
    until(lambda: workshop.row(run_id).state == "running", seen=workshop.seen, meanwhile=supervisor.tick)
    cancel(run_id, now=True)
    supervisor.tick()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    told = time.monotonic()
    supervisor.tick()
    assert workshop.row(run_id).state == "stopping", "an hour has not passed"
    until(lambda: workshop.row(run_id).state != "stopping", seen=workshop.seen, meanwhile=supervisor.tick)
    assert workshop.row(run_id).state == "cancelled"
    assert time.monotonic() - told > 1.5, "three seconds were promised"
    supervisor.database.close()
    supervisor.reader.close()
