"""What identifies the content of files: SHA-256, computed in threads and remembered while a file does not change."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from engine.data.dataset import Progress
from engine.data.threads import in_threads
from engine.errors import DataError

BLOCK = 1 << 20
_State = tuple[int, int, int, int]
_known: dict[str, tuple[_State, str]] = {}
"""Digest of each path that was read, with the (mtime_ns, ctime_ns, size, inode) it had."""
_SETTLED_NS = 2_000_000_000
"""A file that was changed so recently may change again within the clock's grain; its digest is not remembered."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            state = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
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


def recall(file: Path) -> None:
    """Take up digests that an earlier process wrote down; a file that is no such list is ignored."""
    try:
        stored = json.loads(file.read_text())
        for path, (state, digest) in stored.items():
            _known.setdefault(path, ((state[0], state[1], state[2], state[3]), str(digest)))
    except (OSError, ValueError, TypeError, AttributeError, IndexError):
        return


def remember(file: Path) -> None:
    """Write down the digests of all files that have settled, for later processes; a full disk is no reason to fail."""
    newest = time.time_ns() - _SETTLED_NS
    kept = {path: known for path, known in _known.items() if max(known[0][:2]) < newest}
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.write_text(json.dumps(kept))
        temporary.replace(file)
