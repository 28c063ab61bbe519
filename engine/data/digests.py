"""What identifies the content of files: SHA-256, computed in threads and remembered while a file does not change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from engine.data.dataset import Progress
from engine.data.threads import in_threads
from engine.errors import DataError

BLOCK = 1 << 20
_known: dict[str, tuple[tuple[int, int, int], str]] = {}
"""Digest of each path that was read, with the (mtime_ns, size, inode) it had; in memory only."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = _known.get(str(path))
            if known is not None and known[0] == state:
                return known[1]
            digest = hashlib.sha256()
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): replace the file or remove it.") from None
    _known[str(path)] = (state, digest.hexdigest())
    return digest.hexdigest()


def digest_files(root: Path, paths: Sequence[Path], progress: Progress | None = None) -> list[tuple[str, int, str]]:
    """(path relative to ``root``, size in bytes, SHA-256) of each file once, sorted by path.

    Raises:
        DataError: a file cannot be read.
    """
    unique = sorted({os.path.relpath(path, root): path for path in paths}.items())
    text = "computing checksums of the data"
    digests = in_threads(lambda index: file_digest(unique[index][1]), len(unique), text, progress)
    return [(name, path.stat().st_size, digest) for (name, path), digest in zip(unique, digests, strict=True)]
