"""Folders of runs that are queued: written under a hidden name, and in their places before their rows are seen."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from engine.files import sync_folder
from mmtui.paths import Home, RunPaths
from mmtui.services.unfinished import DRAFT

if TYPE_CHECKING:
    from mmtui.store.runs import NewRun

LOGGED = "imported"
"""Recipe and only stage of a run that another trainer logged: its folder has events and no recipe of ours."""
FEW_FILES, SYNCING = 16, 8
"""Files that are brought to the disk one after the other; threads that do it if there are more."""
_NUMBER = re.compile(r"([0-9]{1,15})(\.[0-9]+)?")


class NewFolders:
    """Folders of runs that are being queued, whose hidden rows are there: nobody else has their ids."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.drafts: dict[str, Path] = {}

    def write(self, run_id: str, recipe: str, new: NewRun) -> RunPaths:
        """A folder with the files of a run, hidden until ``place``; they are not on the disk before.

        Args:
            recipe: resolved, as YAML.
        """
        folder = self.home.runs / f"{DRAFT}{run_id}"
        shutil.rmtree(folder, ignore_errors=True)  # of a database that was restored from an older copy
        folder.mkdir(mode=0o700)
        self.drafts[run_id] = folder
        paths = RunPaths(folder)
        for file, text in ((paths.recipe, recipe), (paths.manifest, manifest_text(run_id, new))):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                opened.write(text)
        return paths

    def place(self) -> None:
        """Wait until all files are on the disk, and put the folders in their places.

        Raises:
            OSError: the place of one is taken: the engine goes on from any checkpoint it finds.
        """
        _sync([file for folder in self.drafts.values() for file in (folder / "recipe.yaml", folder / "run.json")])
        for run_id, folder in self.drafts.items():
            folder.rename(self.home.run(run_id).root)
        sync_folder(self.home.runs)

    def remove(self) -> None:
        """Delete the folders that are not in their places."""
        for folder in self.drafts.values():
            shutil.rmtree(folder, ignore_errors=True)


def _sync(files: Sequence[Path]) -> None:
    """Wait until files are on the disk, several at once: a file system brings what waits together there in one go."""
    if len(files) <= FEW_FILES:
        for file in files:
            _sync_one(file)
        return
    with ThreadPoolExecutor(SYNCING) as threads:
        list(threads.map(_sync_one, files))


def _sync_one(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def highest_folder(home: Home) -> int:
    """The largest id of which a folder exists, in the trash too, whatever the database says."""
    names = [entry.name for folder in (home.runs, home.trash) if folder.is_dir() for entry in folder.iterdir()]
    return max((int(match[1]) for name in names if (match := _NUMBER.fullmatch(name))), default=0)


def write_manifest(paths: RunPaths, run_id: str, new: NewRun) -> None:
    """What only the row would tell, in ``run.json``."""
    write_file(paths.manifest, manifest_text(run_id, new))


def manifest_text(run_id: str, new: NewRun) -> str:
    """The text of ``run.json``."""
    manifest = {
        "id": run_id,
        "name": new.name,
        "recipe": new.recipe,
        "seed": new.seed,
        "overrides": list(new.overrides),
        "code": dict(new.code),
        "tags": list(new.tags),
        "group": new.group,
        "terms": {"wanted": new.wanted, "launcher": dict(new.launcher)},
    }
    return json.dumps(manifest, indent=1)


def write_file(path: Path, text: str) -> None:
    """Write a small private file whole or not at all."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.unlink(missing_ok=True)  # of a process that was killed; a trainer could have put a link there
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
