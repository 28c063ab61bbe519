"""Which files were written for a person, by what they held: one that was changed since is the person's own.

A table, a capsule or a copy of the database has no place for a mark of its own, so the data directory keeps their
SHA-256, a line each, below a line that says since when. What is older was written by a version that kept none, and is
taken for what it looks like. A line that is lost costs one question.
"""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import suppress
from pathlib import Path

from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services.output_files import IsOurs, write_text

MOST = 10_000
"""Files that are remembered; the oldest are forgotten first."""
_LINE, _SINCE = 65, "since "


def unchanged(home: Home, looks_ours: IsOurs) -> IsOurs:
    """Whether a file looks as this program makes them, and holds what was written then. An empty one holds nothing."""

    def is_ours(file: Path) -> bool:
        if not looks_ours(file):
            return False
        status, (since, known) = file.stat(), _ledger(home)
        return not status.st_size or status.st_mtime < since or _digest(file) in known

    return is_ours


def remember(home: Home, file: Path) -> None:
    """This file was written just now. What is no regular file is passed over, and so is a home that is read-only."""
    if not file.is_file() or not home.root.is_dir():
        return
    with suppress(OSError, MmtuiError):
        descriptor = os.open(home.written, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "a", encoding="ascii") as lines:
            begin = "" if lines.tell() else f"{_SINCE}{int(file.stat().st_mtime)}\n"
            lines.write(f"{begin}{_digest(file)}\n")
        if home.written.stat().st_size > 2 * MOST * _LINE:
            first, *digests = home.written.read_text(encoding="ascii").splitlines()
            write_text(home.written, "".join(f"{line}\n" for line in (first, *digests[-MOST:])), force=True, mode=0o600)


def _ledger(home: Home) -> tuple[float, set[str]]:
    """(Unix time since when files are remembered, their digests); infinity where none are yet."""
    try:
        first, *digests = home.written.read_text(encoding="ascii", errors="replace").splitlines()
        return float(first.removeprefix(_SINCE)), set(digests)
    except (OSError, ValueError):
        return math.inf, set()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
