"""What identifies the content of files: SHA-256, computed in threads and remembered while a file does not change."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.data.threads import in_threads
from engine.data.values import Progress
from engine.errors import DataError

BLOCK = 1 << 20
_State = tuple[int, int, int, int]
_Known = dict[str, tuple[_State, str]]
_known: _Known = {}
"""Digest of each path that was read, with the (mtime_ns, ctime_ns, size, inode) it had."""
_lists: dict[Path, tuple[_State, _Known]] = {}
"""What each list held when it was last read or written here: it is neither read nor written twice without need."""
_folders: set[str] = set()
"""Folders of files that this process has asked for."""
WAIT_SECONDS = 30.0
"""So long a process waits for others that write a list."""
POLL_SECONDS = 0.02
_SETTLED_NS = 2_000_000_000
"""A file that was changed so recently may change again within the clock's grain; its digest is not remembered."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            state = file_state(os.fstat(file.fileno()))
            _folders.add(str(path.parent))
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
    for path, known in _stored(file).items():
        _known.setdefault(path, known)


def remember(file: Path) -> None:
    """Write down the digests of all files that have settled, for later processes; a full disk is no reason to fail.

    Nothing is written without news. What other processes have written meanwhile is kept; what is gone from folders that
    this process reads is not. Other folders are not looked into: they may be on a server that does not answer.
    """
    with suppress(OSError):
        news = _news(file)
        if news:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _alone(file.parent):
                stored = _stored(file)
                merged = _without_gone({**stored, **news})
                if merged != stored:
                    _write(file, merged)


def _news(file: Path) -> _Known:
    """What has settled and was not in the list when it was last read here."""
    if not file.exists():
        _lists.pop(file, None)
    listed = _lists.get(file)
    before = listed[1] if listed else {}
    newest = time.time_ns() - _SETTLED_NS
    found = _known.copy()  # other threads may add to it
    return {path: known for path, known in found.items() if max(known[0][:2]) < newest and before.get(path) != known}


def _stored(file: Path) -> _Known:
    """The list, read only if it is another one than last time; {} if it is none."""
    try:
        with file.open() as opened:
            state = file_state(os.fstat(opened.fileno()))
            listed = _lists.get(file)
            if listed is None or listed[0] != state:
                pairs = json.load(opened).items()
                listed = (state, {k: ((int(s[0]), int(s[1]), int(s[2]), int(s[3])), str(d)) for k, (s, d) in pairs})
                _lists[file] = listed
            return listed[1]
    except (OSError, ValueError, TypeError, AttributeError, IndexError):
        _lists.pop(file, None)
        return {}


def _write(file: Path, known: _Known) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_text(json.dumps(known))
        temporary.replace(file)
        _lists[file] = (file_state(file.stat()), known)
    finally:
        temporary.unlink(missing_ok=True)


def _without_gone(listed: _Known) -> _Known:
    """Without files that are no longer in folders that this process reads; each folder is listed once."""
    there: dict[str, set[str]] = {}
    for folder in _folders.copy():
        with suppress(OSError):
            there[folder] = {entry.name for entry in os.scandir(folder)}
    kept = {}
    for path, known in listed.items():
        folder, _, name = path.rpartition(os.sep)
        if folder in there and name not in there[folder]:
            _known.pop(path, None)
        else:
            kept[path] = known
    return kept


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; on file systems that know none for folders nothing is held.

    Raises:
        OSError: another process has held it for ``WAIT_SECONDS``.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(POLL_SECONDS)
        except OSError:
            return None


def file_state(status: os.stat_result) -> _State:
    """What differs once a file was changed: (mtime_ns, ctime_ns, size, inode)."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
