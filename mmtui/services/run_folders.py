"""Folders of runs that are queued: written under a hidden name, and in their place when their rows are committed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.files import sync_folder
from mmtui.access import remedy
from mmtui.errors import MmtuiError, UnreachableError
from mmtui.paths import Home, RunPaths
from mmtui.store.reader import Reader

if TYPE_CHECKING:
    from mmtui.store.runs import NewRun

LOGGED = "imported"
"""Recipe and only stage of a run that another trainer logged: its folder has events and no recipe of ours."""
_NUMBER = re.compile(r"([0-9]{1,15})(\.[0-9]+)?")


class NewFolders:
    """Folders of runs whose rows are being written. Only with the write lock held."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.drafts: dict[str, Path] = {}
        self.placed: list[str] = []

    def draft(self, run_id: str) -> RunPaths:
        """An empty folder, hidden until ``place``. One that a killed process left under this name is dead: it had the
        write lock, which this process has now."""
        folder = self.home.runs / f".draft-{run_id}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        self.drafts[run_id] = folder
        return RunPaths(folder)

    def place(self) -> None:
        """Put all folders in their places: the last thing before the commit.

        Raises:
            OSError: the place of one is taken: the engine goes on from any checkpoint it finds.
        """
        for run_id, folder in self.drafts.items():
            folder.rename(self.home.run(run_id).root)
            self.placed.append(run_id)
        sync_folder(self.home.runs)

    def remove(self) -> None:
        """Delete the folders of runs that were not queued after all; those that have a row stay."""
        for folder in self.drafts.values():
            shutil.rmtree(folder, ignore_errors=True)
        if not self.placed:
            return
        try:
            with Reader(self.home) as reader:
                known = {str(row[0]) for row in reader.query("SELECT id FROM runs")}
        except MmtuiError:
            return  # nobody can tell: doctor takes them in
        for run_id in self.placed:
            if run_id not in known:
                shutil.rmtree(self.home.run(run_id).root, ignore_errors=True)


@contextmanager
def new_folders(home: Home) -> Iterator[NewFolders]:
    """Folders for runs that are queued in a transaction inside this context; if it fails, they are deleted.

    Raises:
        UnreachableError: the files cannot be written.
    """
    folders = NewFolders(home)
    try:
        yield folders
    except OSError as error:
        folders.remove()
        why, closed = error.strerror or str(error), remedy(error.filename or home.root)
        raise UnreachableError(
            f"the files of a run cannot be written to {home.root}: {why}",
            f"nothing is queued{closed and f'; {closed}'}",
        ) from None
    except BaseException:
        folders.remove()
        raise


def highest_folder(home: Home) -> int:
    """The largest id of which a folder exists, in the trash too, whatever the database says."""
    names = [entry.name for folder in (home.runs, home.trash) if folder.is_dir() for entry in folder.iterdir()]
    return max((int(match[1]) for name in names if (match := _NUMBER.fullmatch(name))), default=0)


def write_run_files(paths: RunPaths, run_id: str, recipe: str, new: NewRun) -> None:
    """What a trainer reads, and from what the rows of a run can be made again.

    Args:
        recipe: resolved, as YAML.
    """
    write_file(paths.recipe, recipe)
    write_manifest(paths, run_id, new)


def write_manifest(paths: RunPaths, run_id: str, new: NewRun) -> None:
    """What only the row would tell, in ``run.json``."""
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
    write_file(paths.manifest, json.dumps(manifest, indent=1))


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
