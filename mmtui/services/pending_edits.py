"""Edits of waiting runs that are half done: the row decides, the files follow.

The new recipe and manifest are written beside the old ones before the row is committed, and renamed after. A process
that ends in between leaves drafts. ``settle`` puts them in their places if the row has the change, and deletes them if
it does not; the next edit, the start of the run and ``doctor --fix`` call it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from engine.json_types import Json
from mmtui.paths import Home, RunPaths
from mmtui.services.plain_files import read_table
from mmtui.services.run_folders import write_file

_PREFIX = ".edited-"


def write_drafts(paths: RunPaths, recipe: str, manifest: Mapping[str, Json]) -> None:
    """Write what an edited run will have: its recipe (YAML) and its manifest."""
    try:
        write_file(_draft(paths.recipe), recipe)
        # Last: without it the other draft is nothing.
        write_file(_draft(paths.manifest), json.dumps(manifest, indent=1))
    except OSError:
        _draft(paths.recipe).unlink(missing_ok=True)
        raise


def settle(home: Home, run_id: str, overrides: Sequence[str]) -> None:
    """Bring the files of a run in line with its row, if an edit ended half way. Doing it again changes nothing.

    Args:
        overrides: what the row says.

    Raises:
        MmtuiError: it is a fork, and what it goes on from is damaged.
        OSError: the files cannot be changed.
    """
    paths = home.run(run_id)
    recipe, manifest = _draft(paths.recipe), _draft(paths.manifest)
    if not (recipe.exists() or manifest.exists()):
        return
    if _overrides_in(manifest) != list(overrides):
        recipe.unlink(missing_ok=True)
        manifest.unlink(missing_ok=True)
        return
    if recipe.exists():
        _change_checkpoints(home, run_id, recipe)
    for draft, path in ((recipe, paths.recipe), (manifest, paths.manifest)):
        with suppress(FileNotFoundError):  # renamed already, or by another process at this moment
            draft.replace(path)


def unsettled(home: Home) -> list[str]:
    """Ids of runs whose files may not say yet what their rows say."""
    found = {draft.parent.name for draft in home.runs.glob(f"[0-9]*/{_PREFIX}*")}
    return sorted((name for name in found if name.isdecimal()), key=int)


def _change_checkpoints(home: Home, run_id: str, recipe: Path) -> None:
    """What a fork goes on from counts as a checkpoint of its own recipe."""
    if not (home.run(run_id).checkpoints / "origin.json").exists():
        return
    # Only here: pydantic takes long to load, and the supervisor calls this for every run that it starts.
    from engine.config import load_recipe
    from mmtui.services import forks

    forks.change_recipe(home, load_recipe(recipe, stored=True), run_id)


def _overrides_in(manifest: Path) -> list[str] | None:
    """What a manifest says; None if it is none."""
    try:
        found = read_table(manifest).get("overrides")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) else None


def _draft(path: Path) -> Path:
    return path.with_name(f"{_PREFIX}{path.name}")
