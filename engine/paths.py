"""Paths as a user writes them. Imports nothing of the engine."""

from __future__ import annotations

import os
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with the home directory for ``~`` and ``~user``; where there is none it stays as it is, as in a shell.

    ``Path.expanduser`` raises an error then, which a command would have to tell. This path names nothing that exists,
    and whoever opens it says so.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - see above


def is_file(path: Path) -> bool:
    """Whether there is such a file; ``Path`` itself raises for names that are too long, or may not be looked up."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder."""
    try:
        return path.is_dir()
    except OSError:
        return False
