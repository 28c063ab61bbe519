"""The whole program under SIGKILL: real queue, real supervisor, real engine.

Trainer and supervisor are killed at random moments; the run must end as if nothing had happened, bit for bit, and
every event that a trainer wrote must be in the database exactly once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import queue, runs, supervisors
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MATCH_STEPS, SEGMENT_STEPS = 40, 300  # so many that the last kill never comes after the end
OVERRIDES = (
    "data.height=32",
    "data.width=32",
    "data.train=16",
    "data.val=4",
    "model.width=0.5",
    "model.head_channels=32",
    f"match.steps={MATCH_STEPS}",
    "match.images=4",
    "match.crop=32",
    "match.patch_size=[8,16]",
    "match.output_size=16",
    f"segment.steps={SEGMENT_STEPS}",
    "segment.eval_every=25",
    "segment.crop=32",
    "runtime.checkpoint_every=5",
    "runtime.log_every=1",
    "runtime.threads=1",
    "runtime.device=cpu",
    "runtime.reuse_stages=false",  # else the twin takes over what the victim has trained, and proves nothing
)
# Kinds that do not become one row each: metrics and confusion have tables of their own, of progress only the newest
# word is kept, heartbeats only move last_event_at.
NOT_ROWS = {"metrics", "confusion", "progress", "heartbeat"}


class Machine:
    """A data directory whose supervisor can be killed and started again."""

    def __init__(self, home: Home) -> None:
        self.home = home.create()

    def start(self) -> None:
        """As every command line does."""
        supervisors.ensure(self.home)

    def kill(self) -> None:
        """SIGKILL the supervisor; the kernel lets go of its lock when it is gone."""
        pid, _ = supervisors.holder(self.home)
        if pid is not None and pid > 0:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.until(lambda: supervisors.holder(self.home)[0] != pid)

    def until(self, condition: Callable[[], Any]) -> None:
        until(condition, seen=self.seen)

    def seen(self) -> str:
        """The runs, and the last words of the supervisor."""
        rows = [(row.id, row.state, row.stage, row.reason) for row in runs.list_runs(self.home)]
        return f"{rows}\n{self.home.supervisor_log.read_text()[-3000:]}"

    def trained(self, run_id: str) -> int:
        """Furthest global step in the database."""
        return max((point.global_step for point in runs.points(self.home, run_id, "loss")), default=0)

    def kill_trainer(self, run_id: str) -> None:
        """SIGKILL the process of the newest attempt."""
        attempts = runs.get_run(self.home, run_id).attempts
        pid = attempts[-1].pid
        assert pid is not None
        assert attempts[-1].ended_at is None, "the trainer was gone already; the test proves nothing"
        os.killpg(pid, signal.SIGKILL)

    def sql(self, text: str, *parameters: Any) -> list[Any]:
        connection = sqlite3.connect(self.home.database)
        try:
            return connection.execute(text, parameters).fetchall()
        finally:
            connection.close()

    def close(self) -> None:
        """No process outlives the test."""
        self.kill()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.home.root).encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue


@pytest.fixture
def machine(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("MMTUI_CPU_SLOTS", "2")
    made = Machine(home)
    yield made
    made.close()


def told(home: Home, run_id: str) -> list[tuple[int, dict[str, Any]]]:
    """Every complete line of every attempt: (attempt, event)."""
    found = []
    for file in sorted(home.run(run_id).attempts.glob("*/events.jsonl")):
        for line in file.read_bytes().split(b"\n")[:-1]:
            found.append((int(file.parent.name), json.loads(line)))
    return found


def test_run_killed_six_times_ends_bit_identical_to_its_undisturbed_twin(machine: Machine) -> None:
    choose = random.Random(11)
    victim = queue.enqueue(machine.home, "shapes_mixmatch", OVERRIDES, name="victim")
    twin = queue.enqueue(machine.home, "shapes_mixmatch", OVERRIDES, name="twin")
    machine.start()
    # In the first stage, early in the second, late in the second.
    for number, step in enumerate((8, 48, 78), start=1):
        step += choose.randrange(8)
        machine.until(lambda step=step: machine.trained(victim) >= step)
        machine.kill_trainer(victim)
        machine.until(lambda number=number: runs.get_run(machine.home, victim).row.attempt == number + 1)
        time.sleep(choose.uniform(0.0, 2.0))
        machine.kill()  # now and then while the new trainer starts, now and then while it trains
        time.sleep(choose.uniform(0.0, 1.0))
        machine.start()
    machine.until(lambda: all(row.state == "succeeded" for row in runs.list_runs(machine.home)))

    outcomes = [attempt.outcome for attempt in runs.get_run(machine.home, victim).attempts]
    assert outcomes == ["vanished", "vanished", "vanished", "succeeded"]
    assert [attempt.outcome for attempt in runs.get_run(machine.home, twin).attempts] == ["succeeded"]

    for stage in ("match", "segment"):
        weights = [
            (machine.home.run(run_id).checkpoints / stage / "final" / "model.safetensors").read_bytes()
            for run_id in (victim, twin)
        ]
        assert weights[0] == weights[1], f"the weights of stage {stage} differ"
    curves = [
        [(point.stage, point.step, point.value) for point in runs.points(machine.home, run_id, "loss")]
        for run_id in (victim, twin)
    ]
    assert curves[0] == curves[1]
    assert len(curves[0]) == MATCH_STEPS + SEGMENT_STEPS
    tables = [runs.class_table(machine.home, run_id) for run_id in (victim, twin)]
    assert tables[0] is not None
    assert tables[1] is not None
    assert tables[0].confusion == tables[1].confusion

    for run_id in (victim, twin):
        events = told(machine.home, run_id)
        assert Counter(event["seq"] for _, event in events) == Counter(range(1, len(events) + 1))
        rows = machine.sql("SELECT attempt, seq, kind FROM events WHERE run_id = ? AND kind != 'progress'", run_id)
        assert Counter(rows) == Counter((a, e["seq"], e["kind"]) for a, e in events if e["kind"] not in NOT_ROWS)
        points = machine.sql("SELECT attempt, name, global_step, value FROM metrics WHERE run_id = ?", run_id)
        assert Counter(points) == Counter(
            (a, name, e["global_step"], value)
            for a, e in events
            if e["kind"] == "metrics"
            for name, value in e["values"].items()
        )
        evaluations = machine.sql("SELECT attempt, global_step FROM evaluations WHERE run_id = ?", run_id)
        assert Counter(evaluations) == Counter((a, e["global_step"]) for a, e in events if e["kind"] == "confusion")
        assert machine.sql("SELECT sum(corrupt_lines) FROM attempts WHERE run_id = ?", run_id) == [(0,)]
