"""Another recipe for a run that waits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from engine.config import RecipeFileError, load_recipe, strict_yaml
from engine.config.determining import work_name
from mmtui.domain.states import RunState
from mmtui.errors import MmtuiError, RefusedError, UnreachableError, UsageError
from mmtui.paths import Home, RunPaths
from mmtui.services import forks, inputs, labels
from mmtui.services.manifests import read_manifest
from mmtui.services.older_code import readable
from mmtui.services.pending_edits import settle, write_drafts
from mmtui.services.queue import writing
from mmtui.services.together import shared_stages
from mmtui.store import cells

if TYPE_CHECKING:
    from engine.config import Recipe
    from mmtui.store.tables import Run


def edit(home: Home, run_id: str, overrides: Sequence[str]) -> None:
    """Change the recipe of a run that waits and has not begun: further overrides, applied last.

    Raises:
        UsageError: an override is wrong; nothing is changed.
        RefusedError: the run has begun, or does not wait.
    """
    from mmtui.store.runs import change_recipe, read_run, set_origin

    paths = home.run(run_id)
    _look_ahead(home, run_id, overrides)
    with writing(home) as session:
        run = read_run(session, int(run_id))
        _refuse_begun(run)
        settle(home, run_id, _overrides(run))
        resolved = _changed(paths, overrides)
        written = _readable(home, paths, resolved, run)
        forked = forks.plan_change(home, resolved, run_id) if run.origin != "{}" else None
        if run.state == RunState.QUEUED:
            later = run.launcher != "{}" or run.after != "[]" or bool(run.not_before)
            inputs.refuse_lacking(resolved, later=later, taken=forks.taken(forked) if forked else ())
        texts = [*_overrides(run), *overrides]
        change_recipe(session, run, resolved.model_dump(mode="json"), texts, resolved.seed, resolved.stages())
        run.work = work_name(resolved)
        run.shared_stages = "{}" if forked else json.dumps(shared_stages(resolved, cells.mapped(run.code)))
        if forked:
            here = run.parent is not None
            set_origin(session, int(run_id), cells.mapped(run.origin), forks.done_of(forked), here=here)
        manifest = read_manifest(paths.manifest) | {"overrides": texts, "seed": resolved.seed}
        try:
            write_drafts(paths, written, manifest)
        except OSError as error:
            raise UnreachableError(f"{paths.root} cannot be written: {error.strerror or error}") from None
    with writing(home) as session:
        settle(home, run_id, _overrides(read_run(session, int(run_id))))


def _look_ahead(home: Home, run_id: str, overrides: Sequence[str]) -> None:
    """Look at the data now: it takes a second or two, in which others want to write. The answer is remembered."""
    from mmtui.services import runs

    found = runs.get_run(home, run_id)
    with suppress(MmtuiError):  # what is wrong is found again, by what changes the run
        if found.row.state == RunState.QUEUED:
            resolved = _changed(home.run(run_id), overrides)
            labels.look(resolved, _taken(home, resolved, run_id) if found.parent is not None else ())


def _taken(home: Home, recipe: Recipe, run_id: str) -> tuple[str, ...]:
    return forks.taken(forks.plan_change(home, recipe, run_id))


def _readable(home: Home, paths: RunPaths, recipe: Recipe, run: Run) -> str:
    before = strict_yaml.load(strict_yaml.read_text(paths.recipe), "")[0]
    code = home.code / str(cells.mapped(run.code).get("digest", ""))
    return readable(recipe, before if isinstance(before, dict) else {}, str(run.id), code)


def _refuse_begun(run: Run) -> None:
    if run.state not in (RunState.QUEUED, RunState.HELD) or run.attempt:
        begun = "has begun" if run.attempt else f"is {run.state}"
        raise RefusedError(f"run {run.id} {begun}: only a run that has not started can be edited", "queue a new one")


def _changed(paths: RunPaths, overrides: Sequence[str]) -> Recipe:
    try:
        return load_recipe(paths.recipe, list(overrides))
    except RecipeFileError as error:
        raise UsageError(str(error)) from None


def _overrides(run: Run) -> list[str]:
    return list(cells.texts(run.overrides))
