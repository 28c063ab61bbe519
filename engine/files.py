"""Files that survive a power cut, and copies that take no room. No torch in here."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PLAIN = re.compile(r"\w[\w.-]{0,99}", re.ASCII)


def is_plain_name(name: object) -> bool:
    """Whether a name that a file tells is one within its own folder, whoever has written that file."""
    return isinstance(name, str) and _PLAIN.fullmatch(name) is not None


@contextmanager
def utf8_name(path: Path) -> Iterator[str]:
    """A name under which a library opens a file that takes UTF-8 alone: that of its descriptor where its own is none.

    Raises:
        OSError: the file cannot be opened.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield f"/dev/fd/{file.fileno()}"
    else:
        yield str(path)


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(source: Path, target: Path) -> None:
    """A second name for a file that is never written again; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
