"""A data directory to interrupt commands in, and what must hold of it whatever was interrupted."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.config import load_recipe
from mmtui.domain.states import RunEvent
from mmtui.paths import Home
from mmtui.services import (
    doctor,
    forks,
    keeping,
    leftovers,
    mending,
    pending_edits,
    queue,
    replacement,
    stages,
    trash,
    unfinished,
)
from mmtui.services.forks import Fork
from mmtui.store import cells
from mmtui.store.db import Database
from mmtui.store.runs import transition
from tests.family import trained_parent

FINISHED, WAITING, CHILD, REMOVED = "1", "2", "3", "4"
"""Runs of the world: trained to its end; held; held, forked from the first; in the trash."""


def make_world(root: Path) -> Home:
    """One run of each kind, with notes and tags."""
    home = trained_parent(root)
    database = Database(home)
    with database.write() as session:
        for event in (RunEvent.RELEASE, RunEvent.START, RunEvent.EXIT_OK):
            transition(session, int(FINISHED), event)
    database.close()
    queue.enqueue(home, "tiny", ["seed=2"], hold=True, tags=["waiting"])
    terms = queue.Terms(hold=True, tags=("child",))
    queue.enqueue_all(home, "tiny", [["seed=1", "segment.steps=8"]], terms, Fork(FINISHED, 9))
    queue.enqueue(home, "tiny", ["seed=4"], hold=True, tags=["removed"])
    for run_id in (FINISHED, WAITING, CHILD, REMOVED):
        keeping.set_note(home, run_id, f"note of {run_id}")
    trash.remove(home, REMOVED)
    for number in range(2):
        _store_stage(home, f"{number:032x}")
    return home


def _store_stage(home: Home, key: str) -> None:
    """The output of a stage, as the engine stores it."""
    entry = home.stage_cache / key
    shutil.copytree(home.run(FINISHED).checkpoints / "proxy" / "final", entry)
    meta = json.loads((entry / "meta.json").read_text())
    (entry / "meta.json").write_text(json.dumps({**meta, "run": FINISHED, "seconds": 1.0}))


def rows(home: Home) -> dict[str, dict[str, Any]]:
    """What the database says of every run."""
    with closing(sqlite3.connect(home.database)) as connection:
        connection.row_factory = sqlite3.Row
        columns = "id, name, recipe, note, tags, overrides, state, reason, deleted_at IS NOT NULL AS removed, origin"
        return {str(row["id"]): dict(row) for row in connection.execute(f"SELECT {columns} FROM runs ORDER BY id")}


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder that is no draft and no lock."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in Path(name).parts):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def picture(home: Home) -> dict[str, Any]:
    """What a user can see of runs and stored stages: rows, and files of each, wherever they lie."""
    found: dict[str, Any] = {f"stage {entry.key}": files(home.stage_cache / entry.key) for entry in stages.stored(home)}
    for run_id, row in rows(home).items():
        places = [folder for folder in (home.run(run_id).root, home.trash / run_id) if folder.exists()]
        row = {key: value for key, value in row.items() if key != "reason"}
        found[run_id] = {**row, "files": files(places[0]) if len(places) == 1 else [str(place) for place in places]}
    return found


def problems(home: Home) -> list[str]:
    """What does not fit together in a data directory that nobody has mended."""
    with closing(sqlite3.connect(home.database)) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    known = rows(home)
    for run_id, row in known.items():
        if unfinished.is_unfinished(row["reason"]):
            found.append(f"run {run_id}: not whole")
            continue
        here, aside = home.run(run_id).root.exists(), (home.trash / run_id).exists()
        if here + aside != 1 or (aside and not row["removed"]):
            found.append(f"run {run_id}: files here {here}, in the trash {aside}, removed {row['removed']}")
        elif not row["removed"] and row["recipe"] != "imported":
            found += _of_files(home, run_id, row)
    there = {entry.name for entry in home.runs.iterdir() if entry.name.isdecimal()}
    found += [f"run folder {name} without a row" for name in sorted(there - known.keys())]
    return found


def _of_files(home: Home, run_id: str, row: dict[str, Any]) -> list[str]:
    paths, asked = home.run(run_id), list(cells.texts(row["overrides"]))
    try:
        manifest, recipe = json.loads(paths.manifest.read_text()), load_recipe(paths.recipe, stored=True)
    except (OSError, ValueError) as error:
        return [f"run {run_id}: {error}"]
    found = []
    if manifest["overrides"] != asked:
        found.append(f"run {run_id}: overrides {asked}, in its files {manifest['overrides']}")
    if row["origin"] != "{}":
        found += [f"run {run_id}: {error}" for error in _of_fork(home, run_id, recipe)]
    return found


def _of_fork(home: Home, run_id: str, recipe: Any) -> list[str]:
    try:
        forks.plan_change(home, recipe, run_id)
    except Exception as error:
        return [str(error)]
    metas = [json.loads(file.read_text()) for file in home.run(run_id).checkpoints.glob("*/*/meta.json")]
    others = [meta for meta in metas if meta["recipe"] != recipe.model_dump(mode="json")]
    return ["a checkpoint is of another recipe"] if others or not metas else []


def needs_fix(home: Home) -> bool:
    """Whether there is something for ``doctor --fix``."""
    return bool(problems(home) or pending_edits.unsettled(home) or replacement.unfinished(home))


def mend(home: Home) -> list[str]:
    """What ``doctor --fix`` and, an hour later, ``purge`` do; the sentences."""
    doctor._SETTLED = -1.0  # as if it came later: what is being queued right now is nobody's fault
    told = list(mending.fix(home)) if needs_fix(home) else []
    before = rows(home)
    database = Database(home)
    unfinished.remove_abandoned(database, home)
    database.close()
    told += [f"run {run_id}: not whole, removed" for run_id in sorted(before.keys() - rows(home).keys())]
    for one in leftovers.find(home, time.time() + 2 * leftovers.IDLE_SECONDS):
        told.append(f"leftover: {one.what}")
        shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink()
    return told


def hidden(home: Home) -> list[str]:
    """Names in the data directory that are no thing of its own; beside an export, whose place the user chose, the next
    one leaves them too."""
    found = [path.relative_to(home.root).as_posix() for path in home.root.rglob(".*")]
    return sorted(name for name in found if "__pycache__" not in name and not name.startswith(".out.tar."))
