"""Errors of the engine that a user can act on.

Each message is one sentence or two that name the file, the key and the value, and say what to write.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path


class EngineError(Exception):
    """A user's mistake or a bad input; the program prints the message alone, without a traceback."""

    exit_code = 1


class RecipeError(EngineError):
    """The recipe cannot be run as written."""

    exit_code = 2


class DataError(EngineError):
    """The data set cannot be read as the recipe describes it."""


class CheckpointError(EngineError):
    """A checkpoint or weight file cannot be used."""


def disk_full_text(error: OSError, path: Path, what: str) -> str:
    """A sentence for an error of writing ``path``; a full disk is called by its name, with the space that is left."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return f"{what} {path} could not be written: {error.strerror or error}"
    folder = next((parent for parent in path.parents if parent.is_dir()), Path("/"))
    free = shutil.disk_usage(folder).free / 2**20
    return (
        f"the disk is full: {what} {path} did not fit, {free:.1f} MiB are left there;"
        " free some space, then retry the run: it goes on from its last checkpoint"
    )
