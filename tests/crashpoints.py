"""Ends a deed at every step at which it changes the disk: killed there, or the disk is full from there on.

A step is what the operating system or SQLite is about to be asked for: a name made, moved or removed, a file opened for
writing or waited for, a transaction committed. The deed runs in a forked process, so a kill is one.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

KILL, FULL = "killed", "full disk"
_NAMES = {"os.rename": "rename", "os.mkdir": "mkdir", "os.remove": "remove", "os.rmdir": "rmdir", "os.link": "link"}
_TAKES_ROOM = frozenset({"mkdir", "link", "write", "sync", "commit"})
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class _Steps:
    """Counts the steps of this process within a folder; at one of them it ends, or the disk is full."""

    def __init__(self, folder: Path, fault: str, at: int) -> None:
        self.folder, self.fault, self.at = os.fspath(folder), fault, at
        self.seen: list[str] = []
        self.quiet = False
        self.tell: Callable[[list[str]], None] = lambda _seen: None

    def step(self, kind: str, *paths: object) -> None:
        if self.quiet:
            return
        self.seen.append(" ".join([kind, *(self._short(path) for path in paths)]))
        number = len(self.seen)
        if self.fault == KILL and number == self.at:
            self.tell(self.seen)
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == FULL and number >= self.at and kind in _TAKES_ROOM:
            if kind == "commit":
                raise sqlite3.OperationalError("database or disk is full")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _short(self, path: object) -> str:
        text = os.fsdecode(path) if isinstance(path, bytes | str | os.PathLike) else str(path)
        return os.path.relpath(text, self.folder) if text.startswith(self.folder) else text

    def _within(self, path: object) -> bool:
        return isinstance(path, bytes | str | os.PathLike) and os.fsdecode(path).startswith(self.folder)

    def _changes(self, event: str, path: Any) -> bool:
        """Whether there is anything to do: folders are made "if need be", files removed "if there"."""
        return os.path.lexists(path) is (event != "os.mkdir")

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Hook for ``sys.addaudithook``."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING and self._within(path):
                self.step("write", path)
        elif event in _NAMES and self._within(arguments[0]) and self._changes(event, arguments[0]):
            self.step(_NAMES[event], *arguments[: 2 if event in ("os.rename", "os.link") else 1])

    def install(self) -> None:
        """Watch this process from now on."""
        from sqlalchemy import Engine, event

        sync, owner = os.fsync, os.getpid()

        def fsync(descriptor: int) -> None:
            self.step("sync", Path(f"/proc/{owner}/fd/{descriptor}").readlink())
            sync(descriptor)

        os.fsync = fsync
        sys.addaudithook(self.audit)
        event.listen(Engine, "commit", lambda _connection: self.step("commit"))


def takes_room(step: str) -> bool:
    """Whether a step needs room on the disk."""
    return step.partition(" ")[0] in _TAKES_ROOM


def steps_of(deed: Callable[[], object], folder: Path) -> list[str]:
    """What a deed does within a folder, step by step; it runs to its end."""
    status, seen = _run(deed, _Steps(folder, "", 0))
    assert status == 0, seen
    return seen


def end_at(
    deed: Callable[[], object], folder: Path, fault: str, number: int, is_step: Callable[[str], bool] = bool
) -> str:
    """Run a deed in a process of its own, with a fault at a step (1 = the first).

    Args:
        is_step: whether that is the step which is meant: a deed may take one more where the machine is slow.

    Returns:
        "killed", "done", or what it raised.
    """
    status, seen = _run(deed, _Steps(folder, fault, number))
    assert len(seen) >= number and is_step(seen[number - 1]), f"other steps this time, {number} is not the last: {seen}"
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        return KILL
    return "done" if os.WEXITSTATUS(status) == 0 else seen[-1]


def _run(deed: Callable[[], object], steps: _Steps) -> tuple[int, list[str]]:
    """Wait status of the process, and its steps; the last is what it raised, if it did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1

        def tell(seen: list[str]) -> None:
            with os.fdopen(writing, "w") as file:
                json.dump(seen, file)

        try:
            steps.tell = tell
            steps.install()
            deed()
            code = 0
        except BaseException as error:
            steps.quiet = True
            steps.seen.append(f"{type(error).__name__}: {error}")
        finally:
            steps.quiet = True
            tell(steps.seen)
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    _, status = os.waitpid(child, 0)
    return status, json.loads(text) if text else []
