"""A real supervisor process and real trainer processes; only what the trainer computes is a stand-in."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mmtui.domain.views import RunRow
from mmtui.paths import Home
from mmtui.services import code, queue, runs, supervisors
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, begin_attempt, insert_run
from tests.waiting import until

# An "engine" that counts: it writes real event files, checkpoints its step, and misbehaves as its recipe says.
STAND_IN = """
import json, os, pathlib, signal, sys, time
option = lambda name: sys.argv[sys.argv.index(name) + 1]
run_dir, attempt = pathlib.Path(option("--run-dir")), int(option("--attempt"))
behaves = run_dir / "behaves.json"
recipe = json.loads((behaves if behaves.exists() else pathlib.Path(option("--recipe"))).read_text())
stops = []
def stop(*_):
    stops.append(1)
    if len(stops) > 1:
        os._exit(99)  # as the engine: the second SIGTERM ends it at once
signal.signal(signal.SIGTERM, signal.SIG_IGN if recipe.get("deaf") else stop)
if recipe.get("break_at_import"):
    sys.exit("ImportError: no module named \\x1b[31mtorch")
checkpoint = run_dir / "checkpoint"
begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
folder = run_dir / "attempts" / f"{attempt:03d}"
lines = [line for file in sorted((run_dir / "attempts").glob("*/events.jsonl")) for line in file.open()]
seq = len(lines)
file = os.open(folder / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
def emit(kind, step, values, stage="segment"):
    global seq
    seq += 1
    event = dict(v=1, seq=seq, t=time.time(), kind=kind, stage=stage, step=step, global_step=step, values=values)
    os.write(file, json.dumps(event).encode() + b"\\n")
def save(step):
    time.sleep(recipe.get("save_seconds", 0))
    checkpoint.with_suffix(".new").write_text(str(step))
    checkpoint.with_suffix(".new").rename(checkpoint)
    emit("checkpoint", step, {"path": "checkpoint"})
print(f"attempt {attempt} begins at {begin}", flush=True)
emit("run_started", begin, {"stages": [["segment", recipe["steps"]]], "resumed_step": begin,
                            "resumed_global_step": begin, "device": "stand-in", "pid": os.getpid()}, "")
for raw in recipe.get("raw", []):
    os.write(file, raw.encode() + b"\\n")
exec(recipe.get("does", ""))
emit("stage_started", begin, {"total_steps": recipe["steps"], "offset": 0, "resumed_step": begin})
if recipe.get("leave_child") and attempt == 1 and os.fork() == 0:
    time.sleep(60)
    os._exit(0)
deaths = recipe.get("die_at", [0])
for step in range(begin + 1, recipe["steps"] + 1):
    time.sleep(recipe.get("seconds_per_step", 0.005))
    while recipe.get("waits") and step == recipe["steps"] // 2 and not stops and not (run_dir / "may_end").exists():
        time.sleep(0.01)
    emit("metrics", step, {"loss": 1 / step})
    if step == deaths[(attempt - 1) % len(deaths)]:
        os.kill(os.getpid(), signal.SIGKILL)
    if stops:
        save(step)
        emit("run_finished", step, {"status": "stopped"}, "")
        sys.exit(143)
    if step % recipe.get("save_every", 10) == 0:
        save(step)
if recipe.get("fail"):
    emit("error", step, {"text": recipe["fail"], "type": "DataError"})
    emit("run_finished", step, {"status": "failed"}, "")
    sys.exit(1)
emit("run_finished", step, {"status": "succeeded"}, "")
"""


class Workshop:
    """One data directory with its supervisor, and runs of the stand-in."""

    def __init__(self, home: Home) -> None:
        self.home = home.create()
        self.supervisor: subprocess.Popen[bytes] | None = None
        source = home.root / "engine"
        source.mkdir()
        (source / "__init__.py").touch()
        (source / "__main__.py").write_text(STAND_IN)
        self.code = code.digest_of_sources(source)
        (home.code / self.code).mkdir()
        source.rename(home.code / self.code / "engine")

    def add(self, **recipe: Any) -> str:
        """Queue a run; the recipe says how the stand-in behaves. With ``waits`` it trains until ``let_end``."""
        recipe.setdefault("steps", 20)
        stages = [("segment", recipe["steps"])]
        terms = recipe.pop("terms", {})
        new = NewRun("x", "x", 0, recipe, (), recipe.get("code", {"digest": self.code}), stages, **terms)
        database = Database(self.home)
        with database.write() as session:
            run_id = str(insert_run(session, new))
            self.home.run(run_id).root.mkdir()
            self.home.run(run_id).recipe.write_text(json.dumps(recipe))
        database.close()
        return run_id

    def enqueue(self, **recipe: Any) -> str:
        """Queue a run of a real recipe, of which a folder can tell everything; the stand-in trains it."""
        recipe.setdefault("steps", 20)
        run_id = queue.enqueue(self.home, "shapes_baseline", [f"segment.steps={recipe['steps']}"], hold=True)
        paths = self.home.run(run_id)
        (paths.root / "behaves.json").write_text(json.dumps(recipe))
        manifest = json.loads(paths.manifest.read_text())
        manifest["code"] = {"digest": self.code}
        paths.manifest.write_text(json.dumps(manifest))
        self.sql_write("UPDATE runs SET code = ? WHERE id = ?", json.dumps(manifest["code"]), run_id)
        queue.release(self.home, run_id)
        return run_id

    def let_end(self, run_id: str) -> None:
        """Half way a run with ``waits`` trains no further before this."""
        (self.home.run(run_id).root / "may_end").touch()

    def start(self, **environment: str) -> int:
        """Start a supervisor and wait until it holds the lock; its pid."""
        log = self.home.supervisor_log.open("ab")
        self.supervisor = subprocess.Popen(
            [sys.executable, "-m", "mmtui.supervisor"],
            env={**os.environ, "MMTUI_HOME": str(self.home.root), **environment},
            stderr=log,
            stdout=log,
            start_new_session=True,
        )
        log.close()
        pid = self.supervisor.pid
        self.until(lambda: supervisors.holder(self.home)[0] == pid, "the supervisor serves")
        return pid

    def kill(self) -> None:
        """SIGKILL the supervisor."""
        assert self.supervisor is not None
        self.supervisor.kill()
        self.supervisor.wait()

    def row(self, run_id: str) -> RunRow:
        return runs.get_run(self.home, run_id).row

    def claim(self, run_id: str) -> int:
        """What a supervisor does before it spawns, and no more: it was killed right then. The attempt's number."""
        database = Database(self.home)
        with database.write() as session:
            number = begin_attempt(session, int(run_id), ["cpu:0"], "here")
        database.close()
        return number

    def until_state(self, run_id: str, *states: str) -> RunRow:
        """Wait until the run is in one of the states."""
        self.until(lambda: self.row(run_id).state in states, f"run {run_id} to be {' or '.join(states)}")
        return self.row(run_id)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        until(condition, what, self.seen)

    def seen(self) -> str:
        """The runs, and the last words of the supervisor."""
        rows = [(row.id, row.state, row.reason) for row in runs.list_runs(self.home)]
        log = self.home.supervisor_log
        return f"{rows}\n{log.read_text()[-2000:] if log.exists() else ''}"

    def sql(self, text: str, *parameters: Any) -> list[Any]:
        connection = sqlite3.connect(self.home.database)
        try:
            return connection.execute(text, parameters).fetchall()
        finally:
            connection.close()

    def sql_write(self, text: str, *parameters: Any) -> None:
        connection = sqlite3.connect(self.home.database)
        with connection:
            connection.execute(text, parameters)
        connection.close()

    def trainer(self, run_id: str) -> int:
        """Pid of the newest attempt."""
        (pid,) = self.sql("SELECT pid FROM attempts WHERE run_id = ? ORDER BY number DESC LIMIT 1", run_id)[0]
        assert isinstance(pid, int)
        return pid

    def trainers(self) -> list[int]:
        """Pids of all live processes that train in this directory."""
        needle, found = str(self.home.root).encode(), []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and needle in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return [pid for pid in found if self.supervisor is None or pid != self.supervisor.pid]

    def steps_told_and_stored(self, run_id: str) -> tuple[list[Any], list[Any]]:
        """(attempt, step) of every metrics line in the files, and of every row in the database."""
        told = []
        for file in sorted(self.home.run(run_id).attempts.glob("*/events.jsonl")):
            events = [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]
            told += [(int(file.parent.name), e["step"]) for e in events if e["kind"] == "metrics"]
        stored = self.sql("SELECT attempt, step FROM metrics WHERE run_id = ? AND name = 'loss'", run_id)
        return sorted(told), sorted(stored)

    def close(self) -> None:
        """No process outlives a test."""
        if self.supervisor is not None and self.supervisor.poll() is None:
            self.kill()
        self.until(self.all_killed, "nobody to serve or to train")

    def all_killed(self) -> bool:
        """Whether there was nobody to kill. A supervisor that was killed while it started a trainer holds its lock
        until that has become one, and can be killed no more."""
        detached, _ = supervisors.holder(self.home)
        if detached is not None and detached > 0:
            with suppress(ProcessLookupError):
                os.kill(detached, signal.SIGKILL)
        trainers = self.trainers()
        for pid in trainers:
            with suppress(ProcessLookupError):
                os.killpg(os.getpgid(pid), signal.SIGKILL)
        return detached is None and not trainers


@pytest.fixture
def workshop(home: Home) -> Iterator[Workshop]:
    made = Workshop(home)
    yield made
    made.close()


@pytest.fixture
def cancel(workshop: Workshop) -> Callable[..., None]:
    def ask(run_id: str, now: bool = False) -> None:
        queue.cancel(workshop.home, run_id, now=now)

    return ask
