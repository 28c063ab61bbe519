"""Every file and folder name of mmtui, in one place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from mmtui.errors import UsageError


def in_home(path: str, variable: str) -> Path:
    """A path with the home directory for ``~`` and ``~user``; ``variable`` names, or would name, another folder.

    Raises:
        UsageError: there is no such user, or no home directory, as in a container whose user is in no list.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        given = os.environ.get(variable, "")
        told = f"{variable}={given}: there is no such home directory" if given else "this user has no home directory"
        raise UsageError(told, f"set {variable} to a folder that can be written") from None


def identity_of(file: Path) -> tuple[int, int] | None:
    """Device and number of the file that lies at a path, which tell it from one that took its place; None if none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def size_of(path: Path) -> int:
    """Bytes of a file, 0 if it is gone: others may remove it between a look at whether it is there and one at its size.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0


class Home(NamedTuple):
    """The data directory: ``MMTUI_HOME``, else ``$XDG_DATA_HOME/mmtui``. Private to the user (0700)."""

    root: Path

    @classmethod
    def from_environment(cls) -> Home:
        """The directory that the environment names; it is not created here.

        Raises:
            UsageError: it lies in a home directory, and there is none.
        """
        explicit = os.environ.get("MMTUI_HOME", "")
        if explicit:
            return cls(in_home(explicit, "MMTUI_HOME").absolute())
        xdg = os.environ.get("XDG_DATA_HOME", "")
        base = Path(xdg) if xdg else in_home("~/.local/share", "MMTUI_HOME")
        return cls((base / "mmtui").absolute())

    def create(self) -> Home:
        """Make the directories, readable by the user alone."""
        for folder in (self.root, self.runs, self.code, self.trash, self.backups):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self

    @property
    def database(self) -> Path:
        return self.root / "mmtui.db"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def code(self) -> Path:
        """Frozen engine sources, one folder per content digest."""
        return self.root / "code"

    @property
    def imported_code(self) -> Path:
        """Engine sources that came with capsules, one folder per SHA-256: nothing runs them without being asked to."""
        return self.root / "imported-code"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def stage_cache(self) -> Path:
        """Outputs of finished stages that runs share, one folder per key (``engine.stage_cache``)."""
        return self.root / "stages"

    @property
    def lock(self) -> Path:
        """Held with flock by the one supervisor; holds its pid and start time as JSON."""
        return self.root / "supervisor.lock"

    @property
    def supervisor_log(self) -> Path:
        return self.root / "supervisor.log"

    @property
    def screen_log(self) -> Path:
        """Where what failed on the screen comes from; written by ``mmtui.tui.faults``."""
        return self.root / "screen.log"

    @property
    def written(self) -> Path:
        """SHA-256 of files that were written for a person, a line each."""
        return self.root / "written"

    @property
    def reserve(self) -> Path:
        """Space set aside for a full disk."""
        return self.root / "reserve"

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    def run(self, run_id: str) -> RunPaths:
        return RunPaths(self.runs / run_id)


class RunPaths(NamedTuple):
    """Files of one run. The engine knows the same names (``engine.checkpoint``, ``engine.events``)."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe the trainer reads."""
        return self.root / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        """id, name, overrides, code digest: enough to rebuild the database row."""
        return self.root / "run.json"

    @property
    def imported(self) -> Path:
        """Where the run came from, if it came from elsewhere: nothing in its folder is the user's own."""
        return self.root / "imported.json"

    @property
    def attempts(self) -> Path:
        return self.root / "attempts"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    def attempt(self, number: int) -> Path:
        return self.attempts / f"{number:03d}"

    def events(self, number: int) -> Path:
        return self.attempt(number) / "events.jsonl"

    def log(self, number: int) -> Path:
        """stdout and stderr of the trainer."""
        return self.attempt(number) / "output.log"

    def devices(self, number: int) -> Path:
        """What the devices did during an attempt that is over (``mmtui.services.device_history``)."""
        return self.attempt(number) / "devices.json"
