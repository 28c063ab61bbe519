"""Snapshots for front ends: whose processes they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmtui.devices.host import process_identity
from mmtui.paths import Home
from mmtui.services import devices
from mmtui.store.db import Database
from mmtui.store.tables import Attempt, Run

WORKERS = """
import os, subprocess, sys, time
same = subprocess.Popen(["sleep", "600"])
away = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(same.pid, away.pid, flush=True)
time.sleep(600)
"""


@dataclass
class Trainer:
    """A real process tree as a trainer makes it: worker in its session, worker in one of its own."""

    pid: int
    worker: int
    away: int


@pytest.fixture
def trainer() -> Iterator[Trainer]:
    process = subprocess.Popen([sys.executable, "-c", WORKERS], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    worker, away = map(int, process.stdout.readline().split())
    yield Trainer(process.pid, worker, away)
    for group in (process.pid, away):
        os.killpg(group, 9)
    process.communicate()


def store_run(home: Home, pid: int, known: str | None, state: str = "running") -> None:
    database = Database(home.create())
    with database.write() as session:
        run = Run(name="a", recipe="shapes", state=state, attempt=1)
        session.add(run)
        session.flush()
        assert run.id is not None
        session.add(Attempt(run_id=run.id, number=1, pid=pid, pid_identity=known or ""))
    database.close()


def record_processes(path: Path, pids: list[int]) -> Path:
    processes = [{"pid": pid, "usedGpuMemory": 100 - number} for number, pid in enumerate(pids)]
    device = {"nvmlDeviceGetUUID": "GPU-x", "nvmlDeviceGetComputeRunningProcesses": processes}
    path.write_text(json.dumps({"format": 1, "about": "ours", "frames": [{"devices": [device]}]}))
    return path


def test_snapshot_maps_a_trainer_and_its_workers_to_the_run(
    home: Home, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_run(home, trainer.pid, process_identity(trainer.pid))
    pids = [trainer.pid, trainer.worker, trainer.away, os.getpid(), 2**22 + 9]
    monkeypatch.setenv("MMTUI_NVML_RECORDING", str(record_processes(tmp_path / "r.json", pids)))
    found = devices.snapshot(home)
    assert found.simulated
    assert [process.run for process in found.gpus[0].processes] == ["1", "1", "1", "", ""]


@pytest.mark.parametrize(("known", "state"), [("somebody:else", "running"), (None, "succeeded")])
def test_run_pids_leaves_out_reused_pids_and_runs_that_ended(
    home: Home, trainer: Trainer, known: str | None, state: str
) -> None:
    store_run(home, trainer.pid, known or process_identity(trainer.pid), state)
    assert devices.run_pids(home) == {}


def test_run_pids_without_a_database_is_empty_and_makes_none(home: Home) -> None:
    assert devices.run_pids(home) == {}
    assert not home.database.exists()


def test_run_pids_damaged_database_is_empty(home: Home) -> None:
    home.create().database.write_bytes(b"this is no database" * 100)
    assert devices.run_pids(home) == {}


def test_snapshot_passed_owners_are_used_instead_of_the_database(
    home: Home, trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMTUI_NVML_RECORDING", str(record_processes(tmp_path / "r.json", [trainer.worker])))
    assert devices.snapshot(home, {trainer.pid: "7"}).gpus[0].processes[0].run == "7"
