"""What an input may never bring about: a program that runs, a file written elsewhere, memory without a bound."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTS = frozenset(
    {"os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn", "subprocess.Popen"}
)
CHANGES = {
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.symlink": ((1, 2),),
    "os.link": ((1, 3),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
}
"""Audit events of changes to the file system: which of their arguments are a changed path, and the folder it is in."""
MOST_MEMORY = 2**30
"""Bytes of address space that one input may take beside what the process has."""


class Watch:
    """Python's own audit events while an input is worked on. A hook stays for ever, so an ended one is mute."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._allowed: tuple[str, ...] | None = None
        self._ended = False
        sys.addaudithook(self._hear)

    def end(self) -> None:
        """Hear nothing any more."""
        self._ended = True

    @contextmanager
    def input(self, *allowed: Path, starts: Sequence[str] = ()) -> Iterator[None]:
        """One input: it may write below ``allowed`` alone, start no programs but ``starts``, and takes little memory.

        Raises:
            AssertionError: it did something else.
        """
        self.seen.clear()
        self._starts = frozenset(starts)
        self._allowed = tuple(os.path.realpath(path) for path in allowed)
        kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a module that is loaded late is no deed of it
        try:
            with _little_memory():
                yield
        finally:
            self._allowed, sys.dont_write_bytecode = None, kept
        assert not self.seen, self.seen

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._ended or self._allowed is None:
            return
        if event in STARTS:
            if not (event == "subprocess.Popen" and Path(str(arguments[0])).name in self._starts):
                self.seen.append(f"{event} {arguments!r:.300}")
        elif event == "open":
            path, _, flags = arguments
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                self._changed(event, path)
        else:
            for place, folder in CHANGES.get(event, ()):
                self._changed(event, arguments[place], arguments[folder] if folder is not None else -1)

    def _changed(self, event: str, path: Any, folder: int = -1) -> None:
        if isinstance(path, int):
            return
        above = Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else ""
        name = os.path.realpath(os.path.join(above, os.fsdecode(path)))  # noqa: PTH118 - of surrogates, too
        below = any(name == allowed or name.startswith(f"{allowed}/") for allowed in self._allowed or ())
        if not below and not name.startswith("/dev/"):
            self.seen.append(f"{event} {name}")


@contextmanager
def _little_memory() -> Iterator[None]:
    kept = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_MEMORY, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, kept)
