"""The files that a supervisor serves: are they still those that it has open?

A database that is deleted, or replaced by another file, is still there for whoever has it open: a supervisor would go
on with it, and everybody else would look at another one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mmtui.paths import Home, identity_of


class Served:
    """The database and the lock of one data directory, as they were when the supervisor opened them.

    Attributes:
        gone: whether the directory itself was removed, moved away or replaced: nothing of it is left to be served.
    """

    def __init__(self, home: Home, lock_inode: int | None = None) -> None:
        self.home, self.lock_inode, self.gone = home, lock_inode, False
        self._held: dict[Path, int] = {}

    def hold_database(self) -> None:
        """From now on the database must stay the file that it is."""
        self._hold(self.home.database)

    def hold_log(self) -> None:
        """The same for its write-ahead log. A connection must have read: before that, others may remove the log."""
        self._hold(Path(f"{self.home.database}-wal"))

    def _hold(self, file: Path) -> None:
        """By a descriptor that only names it: its number is given to no other file meanwhile, and closing it gives up
        no lock that SQLite has."""
        if file not in self._held:
            with suppress(FileNotFoundError):
                self._held[file] = os.open(file, os.O_PATH | os.O_CLOEXEC)

    def problem(self) -> str:
        """What was done to the files, in words; "" if nothing was."""
        lock = identity_of(self.home.lock)
        if self.lock_inode is not None and (lock is None or lock[1] != self.lock_inode):
            self.gone = True
            return f"the data directory {self.home.root} was removed, moved or replaced"
        for file, held in self._held.items():
            now = identity_of(file)
            if now is None:
                return f"{_named(file)} was deleted or moved"
            kept = os.fstat(held)
            if now != (kept.st_dev, kept.st_ino):
                return f"{_named(file)} was replaced by another file"
        return ""

    def close(self) -> None:
        """Let go of the files."""
        for held in self._held.values():
            os.close(held)
        self._held.clear()


def _named(file: Path) -> str:
    return f"{'the log of the database,' if file.name.endswith('-wal') else 'the database'} {file}"
