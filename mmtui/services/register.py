"""From a run's folder back to its rows: a lost database is made again, and a run from elsewhere is taken in."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import RecipeFileError, load_recipe
from engine.config.determining import stage_names, work_name
from engine.events import attempt_numbers
from mmtui.domain import slurm
from mmtui.domain.states import FINAL_STATES, RunEvent, RunState
from mmtui.domain.text import printable
from mmtui.errors import MmtuiError
from mmtui.paths import Home, RunPaths
from mmtui.services import adoption, trainers, trust, unfinished
from mmtui.services.ingest import ingest_file
from mmtui.services.plain_files import read_table
from mmtui.services.run_folders import LOGGED
from mmtui.services.runs import class_table
from mmtui.services.text_limits import fitting
from mmtui.store import cells
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, add_attempt, insert_run, read_run, set_origin, transition
from mmtui.store.tables import Run

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecipeFileError)
"""What reading the folder of a run may raise: anything may stand in its files."""
IN_DATABASE = "it had not ended when the database was lost; retry it"
IN_CAPSULE = "the events in its capsule do not tell that it ended"
_ENDINGS = {"succeeded": RunEvent.EXIT_OK, "failed": RunEvent.EXIT_ERROR, "crashed": RunEvent.EXIT_ERROR}


@dataclass(frozen=True)
class Registered:
    """What became of one folder."""

    folder: Path
    run_id: str  # "" if it could not be read
    state: str
    problem: str = ""


def rebuild(home: Home, *, trash: bool = False) -> Iterator[Registered]:
    """Every run folder that the database does not know, oldest first; one that cannot be read holds up no other.

    The folders keep their ids, so what was written down elsewhere still points at the same runs.

    Args:
        trash: those in the trash, too, which stay there. A database that was not lost knows them; what it does not
            know are remains of purged runs.
    """
    database = Database(home.create(), anew=True)
    try:
        unfinished.remove_abandoned(database, home)
        for folder in [*_numbered(home.runs), *(_numbered(home.trash) if trash else ())]:
            with database.write() as session:
                known = session.get(Run, int(folder.name)) is not None
            if known or (folder.parent == home.trash and not RunPaths(folder).manifest.exists()):
                continue
            try:
                run_id = register(database, home, folder, unfinished.REBUILD)
            except UNREADABLE as error:
                yield Registered(folder, "", "", printable(str(error).splitlines()[0] if str(error) else repr(error)))
                continue
            yield Registered(folder, run_id, _settled(database, int(run_id), removed=folder.parent == home.trash))
    finally:
        database.close()


def _numbered(parent: Path) -> list[Path]:
    folders = [entry for entry in parent.iterdir() if re.fullmatch("[0-9]{1,15}", entry.name)]
    return sorted(folders, key=lambda entry: int(entry.name))


def _settled(database: Database, run_id: int, *, removed: bool) -> str:
    """The state of a run whose rows were made again; one from the trash is a removed run again."""
    with database.write(durable=True) as session:
        run = read_run(session, run_id)
        if removed:
            run.deleted_at = time.time()
            session.add(run)
        return f"{run.state}, in the trash" if removed else run.state


def register(database: Database, home: Home, folder: Path, what: str) -> str:
    """Make the rows of a run from its folder, whose name is the id that it gets, and no row's yet; returns the id.

    It is not to be seen before all of its rows are there.

    Args:
        what: for what they are made, ``unfinished.IMPORT`` or ``unfinished.REBUILD``.

    Raises:
        one of ``UNREADABLE``: the folder is none of a run, or damaged; nothing of it is in the database.
    """
    run_id = _insert(database, home, folder, what)
    try:
        _fill(database, home, RunPaths(folder), run_id)
    except BaseException:
        with suppress(MmtuiError):  # of a full disk, say: the next rebuild or import removes what is left
            unfinished.remove(database, home, run_id)
        raise
    return str(run_id)


def _insert(database: Database, home: Home, folder: Path, what: str) -> int:
    """The row of the run and its stages, hidden; returns the id."""
    paths = RunPaths(folder)
    manifest = read_table(paths.manifest)
    recipe = None if _is_logged(manifest, paths) else load_recipe(paths.recipe, stored=True)
    created = paths.manifest.stat().st_mtime
    origin = _origin(manifest)
    new = NewRun(
        name=fitting("name", manifest["name"]),
        recipe=fitting("name", manifest["recipe"]),
        seed=int(manifest["seed"]),
        config={} if recipe is None else recipe.model_dump(mode="json"),
        overrides=[str(text) for text in manifest.get("overrides", ())],
        code=trust.told_by(manifest, paths.imported),
        stages=[(LOGGED, 0)] if recipe is None else recipe.stages(),
        tags=[fitting("tag", tag) for tag in manifest.get("tags", ())],
        group=fitting("group", manifest.get("group", "")),
        **_terms(manifest, paths),
        held=True,  # nothing of it starts before everything is known
        work="" if recipe is None else work_name(recipe),
        shared_stages={} if recipe is None or origin or paths.imported.exists() else stage_names(recipe),
    )
    with database.write(durable=True) as session:
        run_id = insert_run(session, new, now=created, number=int(folder.name))
        unfinished.hide(session, run_id, what)
        if origin:
            # The ids of another machine mean other runs here.
            set_origin(session, run_id, origin, here=not paths.imported.exists())
    return run_id


def _terms(manifest: Mapping[str, Any], paths: RunPaths) -> dict[str, Any]:
    """What the run was queued with; nothing, of one from elsewhere: no stranger says how much it takes, and of what."""
    told = {} if paths.imported.exists() else cells.mapped(json.dumps(manifest.get("terms", {})))
    wanted = cells.number(told.get("wanted"))
    return {
        "wanted": wanted if wanted is not None and wanted > 0 else 1.0,
        "launcher": slurm.restored(told.get("launcher")),
    }


def _is_logged(manifest: Mapping[str, Any], paths: RunPaths) -> bool:
    """Whether another trainer logged the run: it has no recipe of ours, and the events that it has are all."""
    return manifest.get("recipe") == LOGGED and not paths.recipe.exists()


def _fill(database: Database, home: Home, paths: RunPaths, run_id: int) -> None:
    """The rows of its attempts and events; then the run is there."""
    numbers = attempt_numbers(paths.root)
    for number in numbers:
        _attempt(database, paths, run_id, number)
    found = trainers.find(paths)
    if found is None:
        silent = "succeeded" if _is_logged(read_table(paths.manifest), paths) else ""
        lost = IN_CAPSULE if paths.imported.exists() else IN_DATABASE
        _close(database, run_id, bool(numbers), silent, lost)
    else:
        adoption.adopt(database, home, found)
        with database.write(durable=True) as session:
            unfinished.show(session, run_id)


def _origin(manifest: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint that a run was forked from; {} if it was not."""
    found = manifest.get("forked_from") or {}
    return {
        **{name: str(found[name]) for name in ("run", "stage") if name in found},
        **{name: int(found[name]) for name in ("step", "global_step") if name in found},
    }


def told_by_folder(home: Home, run_id: int) -> dict[str, Any]:
    """Cells of a run's row as its folder and its evaluations tell them.

    Raises:
        one of ``UNREADABLE``: the folder is gone, or damaged too.
    """
    paths = home.run(str(run_id))
    manifest = read_table(paths.manifest)
    recipe = None if _is_logged(manifest, paths) else load_recipe(paths.recipe, stored=True)
    table, terms = class_table(home, str(run_id)), _terms(manifest, paths)
    return {
        "name": fitting("name", manifest["name"]),
        "recipe": fitting("name", manifest["recipe"]),
        "seed": int(manifest["seed"]),
        "config": json.dumps({} if recipe is None else recipe.model_dump(mode="json")),
        "overrides": json.dumps([str(text) for text in manifest.get("overrides", ())]),
        "code": json.dumps(trust.told_by(manifest, paths.imported)),
        "tags": json.dumps([fitting("tag", tag) for tag in manifest.get("tags", ())]),
        "run_group": fitting("group", manifest.get("group", "")),
        "created_at": paths.manifest.stat().st_mtime,
        "miou": None if table is None or table.miou is None else 100 * table.miou,
        "state": RunState.INTERRUPTED.value,
        **dict.fromkeys(("gpus", "after", "doubts"), "[]"),
        "shared_stages": "{}",
        "launcher": json.dumps(terms["launcher"]),
        "origin": json.dumps(_origin(manifest)),
        **dict.fromkeys(("reason", "error", "stage", "note"), ""),
        "position": 0.0,
        "priority": 0,
        "wanted": terms["wanted"],
    }


def _attempt(database: Database, paths: RunPaths, run_id: int, number: int) -> None:
    """One attempt and all its events."""
    events = paths.events(number)
    try:
        known = events.stat()
        times = known.st_ctime, known.st_mtime
    except FileNotFoundError:
        times = (time.time(),) * 2
    with database.write() as session:
        add_attempt(session, run_id, number, began=times[0], ended=times[1], host=socket.gethostname())
    if events.exists():
        ingest_file(database, events, run_id, number, 0)


def _close(database: Database, run_id: int, begun: bool, silent: str, lost: str) -> None:
    """The state that its events speak of: what had not ended was interrupted, what had not begun is held.

    Args:
        silent: the outcome where its events tell none.
        lost: why nobody knows how it ended.
    """
    with database.write(durable=True) as session:
        unfinished.show(session, run_id)
        run = read_run(session, run_id)
        if not begun or RunState(run.state) in FINAL_STATES:
            return
        outcome = _outcome(session, run) or silent
        transition(session, run_id, RunEvent.RELEASE, reason="made again from its folder")
        transition(session, run_id, RunEvent.START)
        event = _ENDINGS.get(outcome, RunEvent.VANISHED)
        reason = "" if outcome == "succeeded" else run.error or lost
        transition(session, run_id, event, reason=reason, ended_at=run.last_event_at)


def _outcome(session: Any, run: Run) -> str:
    from mmtui.store.runs import read_attempt

    return read_attempt(session, run.id or 0, run.attempt).outcome
