"""Real SQLite files, and runs put into them without recipes or trainers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.ingest import ingest_file
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, begin_attempt, insert_run, transition
from tests.waiting import PATIENCE

STAGES = (("segment", 100), ("evaluate", 1))


@pytest.fixture
def database(home: Home) -> Iterator[Database]:
    opened = Database(home)
    yield opened
    opened.close()


@pytest.fixture
def add_run(database: Database) -> Callable[..., int]:
    """Queue a run with the stages segment (100 steps) and evaluate."""

    def add(name: str = "a run") -> int:
        new = NewRun(name=name, recipe="r", seed=0, config={}, overrides=(), code={}, stages=STAGES)
        with database.write() as session:
            return insert_run(session, new)

    return add


def asked(home: Home, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """What a query gives, all of it."""
    with runs.sql(home, text) as (header, rows):
        return header, list(rows)


class EventFile:
    """The event file of one attempt, written line by line as a trainer does."""

    def __init__(self, database: Database, home: Home, run_id: int, number: int) -> None:
        self.database, self.run_id, self.number = database, run_id, number
        self.path = home.run(str(run_id)).events(number)
        self.path.parent.mkdir(parents=True)
        self.path.touch()
        self.offset, self.seq = 0, 0

    def write(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)

    def emit(
        self, kind: str, step: int, values: dict[str, Any], stage: str = "segment", seq: int | None = None
    ) -> None:
        self.seq = self.seq + 1 if seq is None else seq
        event = {"v": 1, "seq": self.seq, "t": 1000.0 + step, "kind": kind, "stage": stage, "values": values}
        self.write(json.dumps({**event, "step": step, "global_step": step}) + "\n")

    def start(self, resumed: int = 0) -> None:
        place = {"resumed_stage": "segment" if resumed else "", "resumed_step": resumed, "resumed_global_step": resumed}
        stages = [list(item) for item in STAGES]
        self.emit("run_started", resumed, {"stages": stages, "device": "a device", **place}, "")

    def read(self) -> int:
        self.offset = ingest_file(self.database, self.path, self.run_id, self.number, self.offset)
        return self.offset


@pytest.fixture
def new_attempt(database: Database, home: Home) -> Callable[[int], EventFile]:
    """Claim a queued run and open the event file of the new attempt."""

    def begin(run_id: int) -> EventFile:
        with database.write() as session:
            number = begin_attempt(session, run_id, ["cpu:0"], "here")
        return EventFile(database, home, run_id, number)

    return begin


@pytest.fixture
def end_attempt(database: Database) -> Callable[[int], None]:
    """The trainer vanishes and the run is queued again."""
    from mmtui.domain.states import RunEvent

    def end(run_id: int) -> None:
        with database.write() as session:
            transition(session, run_id, RunEvent.VANISHED)
            transition(session, run_id, RunEvent.REQUEUE)

    return end


@pytest.fixture
def run_together(home: Home) -> Callable[..., list[str]]:
    """Run a script in several processes at once, each with its number as argument; their outputs."""

    def run(script: str, count: int) -> list[str]:
        environment = {**os.environ, "MMTUI_HOME": str(home.root)}
        command = [sys.executable, "-c", script]
        processes = [
            subprocess.Popen(
                [*command, str(number)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for number in range(count)
        ]
        outputs = []
        for process in processes:
            out, err = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, err
            outputs.append(out)
        return outputs

    return run


@pytest.fixture
def sql(home: Home) -> Callable[..., list[Any]]:
    """Query the file itself, past our own reader."""
    import sqlite3

    def query(text: str, *parameters: Any) -> list[Any]:
        connection = sqlite3.connect(Path(home.database))
        try:
            return connection.execute(text, parameters).fetchall()
        finally:
            connection.close()

    return query
