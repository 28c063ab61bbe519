"""What changes the queue: runs are added, and wishes are left for the supervisor to carry out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtui.domain.states import ACTIVE_STATES, RunEvent, RunState, is_legal
from mmtui.errors import RefusedError
from mmtui.paths import Home

VERBS: dict[str, RunEvent] = {
    "cancel": RunEvent.CANCEL,
    "pause": RunEvent.PAUSE,
    "resume": RunEvent.RESUME,
    "hold": RunEvent.HOLD,
    "release": RunEvent.RELEASE,
    "retry": RunEvent.RETRY,
}


def enqueue(
    home: Home,
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    name: str = "",
    tags: Sequence[str] = (),
    seed: int | None = None,
    hold: bool = False,
    group: str = "",
) -> str:
    """Queue a run of a recipe and freeze the code it will run; returns its id.

    Raises:
        UsageError: the recipe or an override is wrong.
        UnreachableError: the database cannot be written.
    """
    # SQLModel takes most of a second to import; verbs that only read must not pay for it.
    from engine.config import dump_recipe
    from mmtui.services import code, recipes
    from mmtui.store.db import Database
    from mmtui.store.runs import NewRun, insert_run

    texts = [*overrides, *([f"seed={seed}"] if seed is not None else [])]
    resolved = recipes.resolve(recipe, texts, home)
    home.create()
    frozen = code.freeze(home)
    new = NewRun(
        name=name or resolved.name,
        recipe=resolved.name,
        seed=resolved.seed,
        config=resolved.model_dump(mode="json"),
        overrides=texts,
        code=frozen,
        stages=resolved.stages(),
        tags=tags,
        group=group,
        held=hold,
    )
    database = Database(home)
    try:
        with database.write(durable=True) as session:
            run_id = str(insert_run(session, new, above=_highest_folder(home)))
            # Inside the transaction: a run is never visible without its files.
            _write_files(home, run_id, dump_recipe(resolved), new)
    finally:
        database.close()
    return run_id


def _highest_folder(home: Home) -> int:
    """The largest id of which a folder exists, whatever the database says."""
    return max((int(entry.name) for entry in home.runs.iterdir() if re.fullmatch("[0-9]{1,15}", entry.name)), default=0)


def _write_files(home: Home, run_id: str, recipe: str, new: Any) -> None:
    paths = home.run(run_id)
    paths.root.mkdir(mode=0o700)  # must be new: the engine goes on from any checkpoint it finds
    manifest = {
        "id": run_id,
        "name": new.name,
        "recipe": new.recipe,
        "seed": new.seed,
        "overrides": list(new.overrides),
        "code": dict(new.code),
        "tags": list(new.tags),
    }
    write_file(paths.recipe, recipe)
    write_file(paths.manifest, json.dumps(manifest, indent=1))


def write_file(path: Path, text: str) -> None:
    """Write a small private file whole or not at all."""
    temporary = path.with_name(f".{path.name}.writing")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


def cancel(home: Home, run_id: str, *, now: bool = False) -> None:
    """Stop a run: it checkpoints and leaves; with ``now`` it is killed after a few seconds.

    Raises:
        RefusedError: it is finished already.
        NotFoundError: there is no such run.
    """
    wish(home, run_id, "cancel", {"now": now})


def pause(home: Home, run_id: str) -> None:
    """Checkpoint, end the process and free its device."""
    wish(home, run_id, "pause")


def resume(home: Home, run_id: str) -> None:
    """Put a paused run back into the queue."""
    wish(home, run_id, "resume")


def hold(home: Home, run_id: str) -> None:
    """Keep a queued run from starting."""
    wish(home, run_id, "hold")


def release(home: Home, run_id: str) -> None:
    """Let a held run start."""
    wish(home, run_id, "release")


def retry(home: Home, run_id: str) -> None:
    """Put a failed, cancelled or interrupted run back; it goes on from its last checkpoint."""
    wish(home, run_id, "retry")


def wish(home: Home, run_id: str, verb: str, arguments: Mapping[str, Any] | None = None) -> None:
    """Do what is asked of a run that has no trainer; of one that has, leave a wish for the supervisor.

    Raises:
        RefusedError: not possible in this state.
        NotFoundError: there is no such run.
    """
    from mmtui.store.db import Database
    from mmtui.store.runs import add_wish, apply_verb, read_run

    database = Database(home)
    try:
        with database.write(durable=True) as session:
            state = RunState(read_run(session, int(run_id)).state)
            if state is RunState.STOPPING and verb == "cancel":
                pass  # a second, harder cancel
            elif not is_legal(state, VERBS[verb]):
                raise RefusedError(f"run {run_id} is {state.value}: it cannot be {_PARTICIPLES[verb]}", _hint(state))
            if state in ACTIVE_STATES:
                add_wish(session, int(run_id), verb, arguments or {})
            else:
                # At once, in this very transaction: what is refused is refused here, not later in a log.
                apply_verb(session, int(run_id), verb)
    finally:
        database.close()


_PARTICIPLES = {
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "hold": "held",
    "release": "released",
    "retry": "retried",
}


def _hint(state: RunState) -> str:
    possible = [verb for verb, event in VERBS.items() if is_legal(state, event)]
    return f"possible now: {', '.join(possible)}" if possible else ""
