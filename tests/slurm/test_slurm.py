"""Runs on a real SLURM (slurmctld, two slurmd, munge) that is started here: submission, two nodes over gloo, pausing,
preemption, outside cancellation, a supervisor that dies in between."""

from __future__ import annotations

import getpass
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import runs, supervisors
from tests.e2e.support import TINY, kill_everything, mmtui
from tests.slurm.cluster import Cluster, missing
from tests.waiting import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"SLURM is not installed: {', '.join(missing())}"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def machine(cluster: Cluster, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    for key, value in cluster.environment().items():
        monkeypatch.setenv(key, value)
    yield home
    cluster.ask("scancel", f"--user={getpass.getuser()}")
    kill_everything(home)


def queued(home: Home, *words: str) -> str:
    common = ("runtime.device=cpu", "runtime.reuse_stages=false", "runtime.checkpoint_every=5", "--launcher", "slurm")
    done = mmtui(home, "run", "shapes_mixmatch", *TINY, "segment.steps=10", *common, *words, "-q")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def state(home: Home, run_id: str) -> str:
    return runs.get_run(home, run_id).row.state


def until_state(home: Home, run_id: str, wanted: str) -> None:
    until(lambda: state(home, run_id) == wanted, f"run {run_id} to be {wanted}", lambda: told(home, run_id))


def told(home: Home, run_id: str) -> str:
    """The run, and the last words of its trainer and of the supervisor."""
    row = runs.get_run(home, run_id).row
    log = home.run(run_id).log(max(row.attempt, 1))
    text = log.read_text()[-1500:] if log.exists() else "no output"
    return f"{row}\n{text}\n{home.supervisor_log.read_text()[-1500:]}"


def query(home: Home, sql: str, *parameters: Any) -> list[Any]:
    connection = sqlite3.connect(home.database, timeout=10)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def weights(root: Path, stage: str) -> bytes:
    return (root / "checkpoints" / stage / "final" / "model.safetensors").read_bytes()


def alone(home: Home, run_id: str, folder: Path, processes: int = 1) -> Path:
    """The same recipe by the engine alone, without a queue and without SLURM."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *torchrun, "-m", "engine", "train", "--recipe", str(home.run(run_id).recipe)]
    subprocess.run([*command, "--run-dir", str(folder), "--quiet"], check=True, capture_output=True)
    return folder


def test_run_is_submitted_followed_and_ends_with_its_table(machine: Home, tmp_path: Path) -> None:
    run_id = queued(machine, "--slurm", "partition=low", "--slurm", "time=30", "--slurm", "comment=mmtui test")
    until_state(machine, run_id, "succeeded")
    found = runs.get_run(machine, run_id)
    assert found.row.metrics["miou"] is not None
    ((job, host),) = query(machine, "SELECT job, host FROM attempts WHERE run_id = ?", run_id)
    assert job.isdecimal() and host != "slurm"
    assert "match" in mmtui(machine, "logs", run_id).stdout
    assert mmtui(machine, "classes", run_id).returncode == 0
    for stage in ("match", "segment"):
        assert weights(machine.run(run_id).root, stage) == weights(alone(machine, run_id, tmp_path / "alone"), stage)


def test_run_over_two_nodes_trains_as_two_processes_on_one_machine_do(machine: Home, tmp_path: Path) -> None:
    run_id = queued(machine, "match.graphs=2", "--slurm", "nodes=2")
    until_state(machine, run_id, "succeeded")
    ((values,),) = query(machine, "SELECT \"values\" FROM events WHERE run_id = ? AND kind = 'run_started'", run_id)
    assert '"processes": 2' in values
    other = alone(machine, run_id, tmp_path / "alone", processes=2)
    for stage in ("match", "segment"):
        assert weights(machine.run(run_id).root, stage) == weights(other, stage)


def test_pause_checkpoints_and_gives_the_nodes_back_and_resume_goes_on(machine: Home, cluster: Cluster) -> None:
    run_id = queued(machine, "match.graphs=2", "match.steps=3000", "--slurm", "nodes=2")
    until(lambda: runs.get_run(machine, run_id).row.progress > 0.004, "some steps")
    assert mmtui(machine, "pause", run_id).returncode == 0
    until_state(machine, run_id, "paused")
    cluster.until(lambda: cluster.ask("squeue", "-h").strip() == "", "the nodes are free")
    assert runs.get_run(machine, run_id).attempts[0].outcome == "stopped"
    assert mmtui(machine, "resume", run_id).returncode == 0
    until(lambda: len(runs.get_run(machine, run_id).attempts) == 2, "a second job")
    until(lambda: runs.get_run(machine, run_id).attempts[1].resumed_step > 0, "it goes on where it was")
    assert mmtui(machine, "cancel", run_id, "--now").returncode == 0
    until_state(machine, run_id, "cancelled")


def test_waiting_job_says_why_and_can_be_cancelled(machine: Home, cluster: Cluster) -> None:
    blocker = cluster.ask("sbatch", "--parsable", "-N2", "--exclusive", "-p", "low", "--wrap", "sleep 300").strip()
    cluster.until(lambda: cluster.ask("squeue", "-h", "-j", blocker, "-o", "%T").strip() == "RUNNING", "it blocks")
    run_id = queued(machine)
    until(lambda: "is pending" in runs.get_run(machine, run_id).row.reason, "the reason")
    assert state(machine, run_id) == "starting"
    assert mmtui(machine, "cancel", run_id).returncode == 0
    until_state(machine, run_id, "cancelled")
    cluster.ask("scancel", blocker)


def test_preempted_run_checkpoints_and_is_submitted_again(machine: Home, cluster: Cluster) -> None:
    run_id = queued(machine, "match.steps=400", "--slurm", "partition=low")
    until(lambda: runs.get_run(machine, run_id).row.progress > 0.05, "some steps")
    urgent = cluster.ask("sbatch", "--parsable", "-N2", "--exclusive", "-p", "high", "--wrap", "sleep 4").strip()
    assert urgent
    until_state(machine, run_id, "succeeded")
    attempts = runs.get_run(machine, run_id).attempts
    assert len(attempts) == 2, attempts
    assert attempts[0].outcome == "stopped", "it had time for a checkpoint"
    assert attempts[1].resumed_step > 0 or attempts[1].resumed_stage != "match"


def test_job_that_is_cancelled_outside_is_a_cancelled_run(machine: Home, cluster: Cluster) -> None:
    run_id = queued(machine, "match.steps=3000")
    until(lambda: state(machine, run_id) == "running", "it runs")
    ((job,),) = query(machine, "SELECT job FROM attempts WHERE run_id = ?", run_id)
    cluster.ask("scancel", job)
    until_state(machine, run_id, "cancelled")
    audit = query(machine, "SELECT reason FROM transitions WHERE run_id = ? AND event = 'cancel'", run_id)
    assert audit == [(f"SLURM job {job} was cancelled outside mmtui",)]


def test_supervisor_that_dies_finds_its_job_again_even_without_its_number(machine: Home) -> None:
    run_id = queued(machine, "match.steps=300")
    until(lambda: state(machine, run_id) == "running", "it runs")
    pid, _ = supervisors.holder(machine)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: supervisors.holder(machine)[0] != pid, "it is gone")
    connection = sqlite3.connect(machine.database)
    connection.execute("UPDATE attempts SET job = ''")
    connection.commit()
    connection.close()
    supervisors.ensure(machine)
    until_state(machine, run_id, "succeeded")
    assert len(runs.get_run(machine, run_id).attempts) == 1


def test_partition_that_does_not_exist_fails_in_one_sentence(machine: Home) -> None:
    run_id = queued(machine, "--slurm", "partition=nosuch")
    until_state(machine, run_id, "failed")
    assert "Invalid partition" in runs.get_run(machine, run_id).error


@pytest.mark.parametrize("words", [("--slurm", "colour=red"), ("--slurm", "nodes=x"), ("--gpus", "0.5")])
def test_wrong_slurm_options_exit_2_and_queue_nothing(home: Home, words: tuple[str, ...]) -> None:
    done = mmtui(home, "run", "shapes_mixmatch", "--launcher", "slurm", *words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert not home.database.exists() or query(home, "SELECT count(*) FROM runs") == [(0,)]
