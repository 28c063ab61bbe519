"""Runs that another trainer logged: an event file in this program's format, or TensorBoard's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.events import read_events
from mmtui.domain.states import RunEvent
from mmtui.errors import NotFoundError, UsageError
from mmtui.paths import Home
from mmtui.services.ingest import ingest_file
from mmtui.services.run_folders import highest_folder, write_file
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, add_attempt, insert_run, transition

STAGE = "imported"


def take_in(home: Home, source: Path, name: str = "") -> str:
    """Make a finished run of what another trainer logged; returns its id.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it holds no event.
    """
    if source.suffix == ".jsonl":
        if not source.is_file():
            raise NotFoundError(f"{source} does not exist")
        if not any(event is not None for _, event in read_events(source)):
            raise UsageError(f"{source} holds no event", "the format is described in docs/events.md")
        lines: Iterator[str] | None = None
    else:
        lines = _from_tensorboard(source)
    home.create()
    database = Database(home)
    try:
        return _insert(
            database, home, source, lines, name or source.parent.name if lines is None else name or source.name
        )
    finally:
        database.close()


def _insert(database: Database, home: Home, source: Path, lines: Iterator[str] | None, name: str) -> str:
    text = None if lines is None else "".join(lines)
    with database.write(durable=True) as session:
        code: dict[str, Any] = {}
        new = NewRun(name, "imported", 0, {}, (), code, [(STAGE, 0)], ("imported",), held=True)
        run_id = insert_run(session, new, above=highest_folder(home))
        paths = home.run(str(run_id))
        paths.attempt(1).mkdir(parents=True, mode=0o700)
        if text is None:
            shutil.copyfile(source, paths.events(1))
        else:
            write_file(paths.events(1), text)
        add_attempt(session, run_id, 1, began=None, ended=None, host="")
    ingest_file(database, paths.events(1), run_id, 1, 0)
    with database.write(durable=True) as session:
        transition(session, run_id, RunEvent.RELEASE)
        transition(session, run_id, RunEvent.START)
        transition(session, run_id, RunEvent.EXIT_OK, reason=f"imported from {source}")
    return str(run_id)


def _from_tensorboard(source: Path) -> Iterator[str]:
    """The scalars as event lines, in the order of their times."""
    from mmtui.services.exchange import tensorboard

    scalars = sorted(tensorboard.read(source), key=lambda one: (one[2], one[1]))
    if not scalars:
        raise UsageError(f"{source} has no scalars")
    for seq, (tag, step, moment, value) in enumerate(scalars, 1):
        event = {"v": 1, "seq": seq, "t": moment, "kind": "metrics", "stage": STAGE, "step": step, "global_step": step}
        yield json.dumps({**event, "values": {tag: value}}) + "\n"
