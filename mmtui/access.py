"""What opens a file or folder that the system keeps from us."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path


def remedy(path: str | bytes | Path, writing: bool = True) -> str:
    """What to do about "Permission denied": the outermost folder, or the file, that is closed, and who can open it.

    Args:
        writing: it was to be written, not only read.

    Returns:
        "" where nothing on the way to the path is closed.
    """
    closed = _closed(Path(os.fsdecode(path)).absolute(), os.R_OK | (os.W_OK if writing else 0))
    if closed is None:
        return ""
    wanted, bits = ("u+rwx", 0o700) if closed.is_dir() else ("u+rw", 0o600)
    found = closed.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == os.geteuid() and mode & bits != bits:
        return f"chmod {wanted} {shlex.quote(str(closed))}"
    if found.st_uid == os.geteuid():
        return f"{closed} lies where nothing can be written: name another place"
    return f"{closed} belongs to {_owner(found.st_uid)} (mode {mode:03o}): ask for access, or name another place"


def _closed(path: Path, rights: int) -> Path | None:
    """The first on the way to a path that does not let us through; None if each does."""
    for folder in reversed(path.parents):
        if not os.access(folder, os.F_OK):
            return None
        if not os.access(folder, os.R_OK | os.X_OK):
            return folder
    if not path.exists():
        return path.parent if path.parent.is_dir() and not os.access(path.parent, rights) else None
    return None if os.access(path, rights | (os.X_OK if path.is_dir() else 0)) else path


def _owner(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
