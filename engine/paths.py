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


def lack(path: Path) -> str:
    """Why there is no such file, continuing its name: "does not exist", or what is there instead."""
    if is_folder(path):
        return "is a folder"
    try:
        if path.is_symlink():
            return "is a link to what does not exist"
        return "is no file" if path.exists() else "does not exist"
    except OSError:
        return "does not exist"


def is_folder(path: Path) -> bool:
    """Whether there is such a folder."""
    try:
        return path.is_dir()
    except OSError:
        return False
