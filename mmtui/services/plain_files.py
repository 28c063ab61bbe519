"""Files of a run, whose folder a trainer can write: something else may stand in their place."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MOST_OF_MANIFEST = 2**24
"""Bytes of a JSON file of a run."""


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading. A pipe or a device is an error at once: opening one may wait for ever.

    Raises:
        FileNotFoundError: there is none.
        OSError: it is no file, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no file", str(path))
    return os.fdopen(descriptor, "rb")


def read_table(path: Path) -> dict[str, Any]:
    """The JSON table in a file of a run.

    Raises:
        OSError: there is none, it is no file, or longer than ``MOST_OF_MANIFEST``.
        ValueError: no table is in it.
    """
    with open_file(path) as file:
        text = file.read(MOST_OF_MANIFEST + 1)
    if len(text) > MOST_OF_MANIFEST:
        raise OSError(errno.EFBIG, f"is longer than {MOST_OF_MANIFEST >> 20} MiB", str(path))
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("tables too deep in tables") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON table")
    return found


def named_file(folder: Path, name: object) -> Path | None:
    """The plain file in a folder, or below it, that a trainer has named; None if there is none.

    Args:
        name: as an event has it, which anybody may have written: it leads elsewhere, is too long, or no text at all.
    """
    if not isinstance(name, str) or not name:
        return None
    try:
        root, file = folder.resolve(), (folder / name).resolve()
        return file if file.is_relative_to(root) and file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, links that lead in a circle
        return None
