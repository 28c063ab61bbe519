"""The queue with the real engine: stages that are shared, runs of several processes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from mmtui.paths import Home
from mmtui.services import runs
from tests.e2e.support import TINY, kill_everything, mmtui, wait_for_end
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def machine(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("MMTUI_CPU_SLOTS", "2")
    yield home
    kill_everything(home)


def queued(home: Home, *words: str) -> list[str]:
    done = mmtui(home, "run", "shapes_mixmatch", *TINY, *words, "-q")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def query(home: Home, sql: str, *parameters: Any) -> list[Any]:
    connection = sqlite3.connect(home.database)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def weights(home: Home, run_id: str, stage: str) -> bytes:
    return (home.run(run_id).checkpoints / stage / "final" / "model.safetensors").read_bytes()


def test_sweep_trains_what_its_runs_share_once(machine: Home) -> None:
    ids = queued(machine, "segment.steps=6", "segment.optim.lr=0.1,0.05,0.01")
    wait_for_end(machine, *ids)
    assert query(machine, "SELECT count(DISTINCT run_id) FROM metrics WHERE stage = 'match'") == [(1,)]
    reused = query(machine, "SELECT run_id, \"values\" FROM events WHERE kind = 'stage_reused' ORDER BY run_id")
    assert [str(row[0]) for row in reused] == ids[1:]
    assert {json.loads(row[1])["run"] for row in reused} == {ids[0]}
    assert len({weights(machine, run_id, "match") for run_id in ids}) == 1
    assert len({weights(machine, run_id, "segment") for run_id in ids}) == 3
    alone = queued(machine, "segment.steps=6", "segment.optim.lr=0.01", "runtime.reuse_stages=false")
    wait_for_end(machine, *alone)
    assert weights(machine, alone[0], "segment") == weights(machine, ids[2], "segment")
    shown = mmtui(machine, "show", ids[1]).stdout
    assert f"taken over from run {ids[0]}" in shown


def test_run_of_two_processes_under_torchrun_survives_its_killing(machine: Home) -> None:
    words = ("match.graphs=2", "match.steps=30", "segment.steps=12", "runtime.checkpoint_every=5", "--gpus", "2")
    undisturbed = queued(machine, *words, "runtime.reuse_stages=false")[0]
    wait_for_end(machine, undisturbed)
    run_id = queued(machine, *words, "runtime.reuse_stages=false")[0]
    until(lambda: runs.get_run(machine, run_id).row.progress > 0.3, "a third of the run")
    assert runs.get_run(machine, run_id).row.gpus == ("cpu:0", "cpu:1")
    (pid,) = query(machine, "SELECT pid FROM attempts WHERE run_id = ? AND number = 1", run_id)[0]
    workers = psutil.Process(pid).children(recursive=True)
    assert len(workers) >= 2
    os.kill(pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE)
    assert alive == [], "workers have sessions of their own; they must end with torchrun"
    wait_for_end(machine, run_id)
    assert len(runs.get_run(machine, run_id).attempts) == 2
    for stage in ("match", "segment"):
        assert weights(machine, run_id, stage) == weights(machine, undisturbed, stage)


def test_run_of_two_processes_is_paused_with_a_checkpoint_and_goes_on(machine: Home) -> None:
    run_id = queued(machine, "match.graphs=2", "match.steps=2000", "segment.steps=4", "--gpus", "2")[0]
    until(lambda: runs.get_run(machine, run_id).row.progress > 0.01, "some steps")
    assert mmtui(machine, "pause", run_id).returncode == 0
    until(lambda: runs.get_run(machine, run_id).row.state == "paused", "pause")
    assert any((machine.run(run_id).checkpoints / "match").glob("step_*"))
    assert mmtui(machine, "resume", run_id).returncode == 0
    until(lambda: len(runs.get_run(machine, run_id).attempts) == 2, "a second attempt")
    until(lambda: runs.get_run(machine, run_id).attempts[1].resumed_step > 0, "it goes on")
    assert mmtui(machine, "cancel", run_id, "--now").returncode == 0
