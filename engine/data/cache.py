"""Decoded data on disk, for data sets that do not fit in memory: decoded once, checked and mapped by every run.

An entry is two files named after the content it was decoded from: ``NAME.bin``, the images uint8 (N + M, 3, H, W) and
then the labels uint8 (N, H, W) without anything between, and ``NAME.json``, which says what is in it and holds the
SHA-256 of every chunk. Both are written beside and renamed, the header last, under a lock: of several runs that start
at once one decodes and the others wait.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.data.dataset import Progress, SegmentationData
from engine.data.pictures import Bytes
from engine.data.source import Source, decode, decoder_digest
from engine.data.threads import in_threads
from engine.errors import DataError, disk_full_text

FORMAT = 1
CHUNK = 16 << 20
"""Bytes that one checksum covers."""
POLL_SECONDS = 0.1


def load_cached(
    source: Source,
    folder: Path,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> SegmentationData:
    """The data of ``source`` as tensors that map a file of ``folder``; decoded now if it is not there.

    Args:
        warn: told of an entry that is damaged and is made anew.

    Raises:
        DataError: the data cannot be read, or the folder not be written.
    """
    entry = _Entry(source, folder.expanduser(), source.digest(progress))
    try:
        entry.folder.mkdir(parents=True, exist_ok=True)
        with entry.locked(fcntl.LOCK_SH, progress):
            content, _ = entry.open(progress)
        if content is None:
            with entry.locked(fcntl.LOCK_EX, progress):
                content, damage = entry.open(progress)  # another run may have been faster
                if damage and warn is not None:
                    warn(f"the data cache {entry.data} is damaged ({damage}): it is decoded again")
                if content is None:
                    entry.write(progress)
                    content = entry.map()
    except OSError as error:
        path = Path(error.filename or entry.data)
        text = disk_full_text(error, path, "the data cache")
        raise DataError(f"{text}; set runtime.data_cache to a folder that can be written and has room.") from None
    return _tensors(source, content)


class _Entry:
    """One split in the cache folder."""

    def __init__(self, source: Source, folder: Path, digest: str) -> None:
        self.source, self.folder = source, folder
        self.key = hashlib.sha256(f"{FORMAT}/{digest}/{decoder_digest()}".encode()).hexdigest()
        stem = f"{source.split}_{self.key[:32]}"
        self.data, self.header, self.lock = (folder / f"{stem}.{end}" for end in ("bin", "json", "lock"))

    @contextlib.contextmanager
    def locked(self, kind: int, progress: Progress | None) -> Iterator[None]:
        """Hold the entry's lock, shared for reading; a folder that cannot be written needs none for that."""
        try:
            descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or kind == fcntl.LOCK_EX:
                raise
            yield
            return
        try:
            _acquire(descriptor, kind, self.data, progress)
            yield
        finally:
            os.close(descriptor)

    def open(self, progress: Progress | None) -> tuple[Bytes | None, str]:
        """The checked content, or None and what is wrong with it; nothing is wrong if there is no entry."""
        if not self.header.exists():
            return None, ""
        try:
            header = json.loads(self.header.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None, f"{self.header.name} is no JSON file"
        if not isinstance(header, dict) or any(header.get(k) != v for k, v in self._describe().items()):
            return None, f"{self.header.name} describes other data"
        if not self.data.is_file() or self.data.stat().st_size != self.source.nbytes:
            return None, "its size is wrong"
        content = self.map()
        text = f"checking cached {self.source.split} images"
        if _chunk_digests(content, text, progress) != header.get("sha256"):
            return None, "a checksum differs"
        return content, ""

    def map(self) -> Bytes:
        """The content as it lies on disk, uint8 (nbytes,), which cannot be written to."""
        return np.memmap(self.data, np.uint8, mode="r", shape=(self.source.nbytes,))

    def write(self, progress: Progress | None) -> None:
        """Decode into a new file, then take it in."""
        temporary = self.data.with_suffix(".bin.writing")
        try:
            with temporary.open("wb+") as file:
                # Room is taken first: a full disk is an error here and would be the process's end in a mapping.
                os.posix_fallocate(file.fileno(), 0, self.source.nbytes)
                content = np.memmap(file, np.uint8, mode="r+", shape=(self.source.nbytes,))
                decode(self.source, *_split(self.source, content), progress)
                digests = _chunk_digests(content, f"computing checksums of {self.source.split} images", progress)
                content.flush()
                os.fsync(file.fileno())
            temporary.replace(self.data)
        finally:
            temporary.unlink(missing_ok=True)
        self._write_header({"what": self.source.what, **self._describe(), "sha256": digests})

    def _write_header(self, header: dict[str, Any]) -> None:
        temporary = self.header.with_suffix(".json.writing")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(header, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.header)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _describe(self) -> dict[str, Any]:
        """The header without its checksums, as JSON gives it back."""
        source = self.source
        return {
            "format": FORMAT,
            "fingerprint": self.key,
            "chunk": CHUNK,
            "images": list(source.image_shape),
            "labels": list(source.label_shape),
            "sizes": [list(size) for size in source.sizes],
            "names": source.names,
            "classes": list(source.classes),
        }


def _acquire(descriptor: int, kind: int, data: Path, progress: Progress | None) -> None:
    """Wait for the lock, so that the run can be told to leave meanwhile."""
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if progress:
                progress(f"waiting for another run that decodes into {data.parent}", 0, 1)
            time.sleep(POLL_SECONDS)


def _chunk_digests(content: Bytes, text: str, progress: Progress | None) -> list[str]:
    def digest(index: int) -> str:
        return hashlib.sha256(content[index * CHUNK : (index + 1) * CHUNK].data).hexdigest()

    return in_threads(digest, -(-len(content) // CHUNK), text, progress)


def _split(source: Source, content: Bytes) -> tuple[Bytes, Bytes]:
    """Images and labels in the bytes of an entry."""
    end = int(np.prod(source.image_shape))
    return content[:end].reshape(source.image_shape), content[end:].reshape(source.label_shape)


def _tensors(source: Source, content: Bytes) -> SegmentationData:
    with warnings.catch_warnings():
        # torch would warn that the mapping cannot be written to; nothing writes to data, and nothing should.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        images, labels = (torch.from_numpy(part) for part in _split(source, content))
    return source.assemble(images, labels, mapped=True)
