"""A fork with the real supervisor and trainers: queued while its parent trains, killed, and its parent purged."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator

import pytest

from mmtui.paths import Home
from mmtui.services import runs
from tests.e2e.support import kill_everything, mmtui, wait_for_end
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def machine(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("MMTUI_CPU_SLOTS", "2")
    yield home
    kill_everything(home)


def weights(home: Home, run_id: str, stage: str) -> bytes:
    return (home.run(run_id).checkpoints / stage / "final" / "model.safetensors").read_bytes()


def test_fork_of_a_training_run_is_killed_outlives_its_parent_and_ends_as_it_did(machine: Home) -> None:
    words = ("segment.steps=300", "runtime.threads=1", "runtime.keep_every=50", "runtime.log_every=5")
    assert mmtui(machine, "run", "shapes_smoke", *words, "-q").stdout == "1\n"
    # proxy 10, match 10: 50 steps of segment are done at step 70 of the run.
    until(lambda: runs.get_run(machine, "1").row.progress > 100 / 321, "step 100 of the parent")
    assert runs.get_run(machine, "1").row.state == "running"
    done = mmtui(machine, "run", "--from", "1@75", "-q")
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    tie = runs.get_run(machine, "2").parent
    assert tie is not None and (tie.stage, tie.step, tie.global_step) == ("segment", 50, 70)
    wait_for_end(machine, "1")
    whole = weights(machine, "1", "segment")

    until(lambda: runs.get_run(machine, "2").row.progress > 0.4, "the child's first steps")
    connection = sqlite3.connect(machine.database)
    (pid,) = connection.execute("SELECT pid FROM attempts WHERE run_id = 2 ORDER BY number DESC").fetchone()
    connection.close()
    os.kill(pid, signal.SIGKILL)
    assert mmtui(machine, "rm", "1").returncode == 0 and mmtui(machine, "purge", "--yes").returncode == 0
    wait_for_end(machine, "2")
    detail = runs.get_run(machine, "2")
    assert len(detail.attempts) == 2 and detail.parent is not None and not detail.parent.here
    assert weights(machine, "2", "segment") == whole

    shown = json.loads(mmtui(machine, "show", "2", "--json").stdout)
    assert (shown["parent"]["run"], shown["parent"]["global_step"]) == ("1", 70)
    assert [stage["reused_from"] for stage in shown["stages"]] == ["1", "1", "", ""]
    assert shown["metrics"]["miou"] is not None
