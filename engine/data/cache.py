"""Decoded data on disk, for data sets that do not fit in memory: decoded once, checked and mapped by every run.

An entry is two files named after the content it was decoded from: ``NAME.bin``, the images uint8 (N + M, 3, H, W) and
then the labels uint8 (N, H, W) without anything between, and ``NAME.json``, which says what is in it and holds the
SHA-256 of every chunk. Images of a proxy task have no labels. Both are written beside and renamed, the header last,
under a lock: of several runs that start at once one decodes and the others wait. What a killed one leaves,
``NAME.bin.writing``, the next run that comes here removes. ``digests`` beside them holds checksums of files that were
read before.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from engine.config.schema import NO_CACHE
from engine.data import digests
from engine.data.dataset import SegmentationData
from engine.data.decoding import assemble
from engine.data.limits import GIB
from engine.data.pictures import Bytes
from engine.data.source import Source, decode, decoder_digest
from engine.data.threads import in_threads
from engine.data.values import Progress
from engine.errors import DataError, disk_full_text
from engine.json_types import Json, JsonObject

FORMAT = 1
CHUNK = 16 << 20
"""Bytes that one checksum covers."""
POLL_SECONDS = 0.1
Warn = Callable[[str], None]
Tell = Callable[["CacheUse"], None]


@dataclass(frozen=True)
class CacheUse:
    """What is about to be mapped.

    Attributes:
        label: train, val or proxy.
        folder: where it lies.
        nbytes: its size.
        found: whether an earlier run has decoded it; else it is decoded now.
    """

    label: str
    folder: Path
    nbytes: int
    found: bool


@dataclass(frozen=True)
class Content:
    """What an entry is made of.

    Attributes:
        label: begins the names of the files: train, val or proxy.
        what: the content in words, for sentences.
        advice: what to lower if it is too large, continuing "set runtime.data_cache to ..., ".
        nbytes: its size.
        describe: what the header says of it, as JSON gives it back.
        digest: hexadecimal, of everything that decides the content except the code; reports progress.
        fill: decodes into zeros, uint8 (nbytes,), which are the file behind the descriptor.
    """

    label: str
    what: str
    advice: str
    nbytes: int
    describe: Mapping[str, Json]
    digest: Callable[[Progress | None], str]
    fill: Callable[[Bytes, int, Progress | None], None]


def cache_folder(setting: str) -> Path | None:
    """The folder that ``runtime.data_cache`` means; None = data over the budget are refused.

    Without a home directory it stays "~...", which ``map_content`` refuses: data that fit the budget need no folder.
    """
    if setting == NO_CACHE:
        return None
    try:
        return Path(setting).expanduser() if setting else default_folder()
    except RuntimeError:
        return Path(setting or "~/.cache/mmtui/decoded")


def default_folder() -> Path:
    """``$MMTUI_HOME/decoded``, else ``$XDG_CACHE_HOME/mmtui/decoded``, else the same in ``~/.cache``.

    Raises:
        RuntimeError: it lies in a home directory, and there is none.
    """
    home, xdg = os.environ.get("MMTUI_HOME", ""), os.environ.get("XDG_CACHE_HOME", "")
    root = Path(home).expanduser() if home else (Path(xdg) if xdg else Path.home() / ".cache") / "mmtui"
    return root.absolute() / "decoded"


def load_cached(
    source: Source,
    folder: Path,
    progress: Progress | None = None,
    warn: Warn | None = None,
    tell: Tell | None = None,
) -> SegmentationData:
    """The data of ``source`` as tensors that map a file of ``folder``; decoded now if it is not there.

    Args:
        warn: told of an entry that is damaged and is made anew.
        tell: told what will be mapped, before it is decoded or checked; where no entry can be there, before anything
            is read. Told twice if another run decodes it meanwhile.

    Raises:
        DataError: the data cannot be read, or the folder not be written, or its disk has no room.
    """
    describe: JsonObject = {
        "images": list(source.image_shape),
        "labels": list(source.label_shape),
        "sizes": [list(size) for size in source.sizes],
        "names": source.names,
        "classes": list(source.classes),
    }

    def fill(content: Bytes, _descriptor: int, progress: Progress | None) -> None:
        decode(source, *_split(source, content), progress)

    asked = Content(source.split, source.what, source.advice, source.nbytes, describe, source.digest, fill)
    images, labels = _split(source, map_content(asked, folder, progress, warn, tell))
    return assemble(source, tensor_of(images), tensor_of(labels), mapped=True)


def map_content(
    content: Content,
    folder: Path,
    progress: Progress | None = None,
    warn: Warn | None = None,
    tell: Tell | None = None,
) -> Bytes:
    """A content as a file of ``folder``, uint8 (nbytes,), not to be written to; see ``load_cached``.

    Raises:
        DataError: as there.
    """
    folder, warn, tell = _expanded(folder), warn or (lambda _text: None), _once(tell)
    try:
        _make(folder)
        if not _may_be_there(content, folder, _sweep(folder)):
            _require_room(content, folder)  # checksums of all files take long: nobody should wait for them in vain
            tell(CacheUse(content.label, folder, content.nbytes, found=False))
        entry = _Entry(content, folder, _digest(content, folder, progress))
        return _mapped(entry, progress, warn, tell)
    except OSError as error:
        path = Path(error.filename or folder)
        text = disk_full_text(error, path, "the data cache")
        raise DataError(f"{text}; set runtime.data_cache to a folder that can be written and has room.") from None


def tensor_of(mapped: Bytes) -> torch.Tensor:
    """A tensor of the same memory."""
    with warnings.catch_warnings():
        # torch would warn that the mapping cannot be written to; nothing writes to data, and nothing should.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(mapped)


def _expanded(folder: Path) -> Path:
    try:
        return folder.expanduser()
    except RuntimeError:
        raise DataError(
            f"data over runtime.memory_budget_gib are decoded into {folder}, and this user has no home directory: "
            "set runtime.data_cache to a folder that can be written and has room, or raise the budget."
        ) from None


def _once(tell: Tell | None) -> Tell:
    """Tell nothing a second time."""
    told: set[CacheUse] = set()

    def once(use: CacheUse) -> None:
        if tell and use not in told:
            told.add(use)
            tell(use)

    return once


def _mapped(entry: _Entry, progress: Progress | None, warn: Warn, tell: Tell) -> Bytes:
    asked = entry.content
    while True:
        with entry.locked(fcntl.LOCK_SH, progress):
            seen = entry.header_state()
            if seen is not None:
                tell(CacheUse(asked.label, entry.folder, asked.nbytes, found=True))
            found, damage = entry.open(progress)
        if found is not None:
            return found
        # All that waited for a faster run leave the queue for the lock and check at once, not one after the other.
        with entry.locked(fcntl.LOCK_EX, progress, partial(entry.overtaken, seen)) as mine:
            if mine:
                if damage:
                    warn(f"the data cache {entry.data} is damaged ({damage}): it is decoded again")
                tell(CacheUse(asked.label, entry.folder, asked.nbytes, found=False))
                entry.write(progress)
                return entry.map()


def _make(folder: Path) -> None:
    """Make the folder; the default one is private to the user, as all that mmtui keeps."""
    if folder == cache_folder(""):
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    else:
        folder.mkdir(parents=True, exist_ok=True)


def _digest(content: Content, folder: Path, progress: Progress | None) -> str:
    """The content's digest; those of files that did not change are remembered from run to run."""
    remembered = folder / "digests"
    digests.recall(remembered)
    found = content.digest(progress)
    digests.remember(remembered)
    return found


def _sweep(folder: Path) -> list[Path]:
    """Remove what killed decoders have left, which takes as much room as an entry.

    Returns:
        The files that other runs are writing: those whose lock is held.
    """
    held = []
    for file in folder.glob("*.bin.writing"):
        with contextlib.suppress(OSError):  # what may not be removed does not keep anybody from reading
            descriptor = _open_lock(file.with_suffix("").with_suffix(".lock"))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink(missing_ok=True)
            except BlockingIOError:
                held.append(file)
            finally:
                os.close(descriptor)
    return held


def _may_be_there(content: Content, folder: Path, written: list[Path]) -> bool:
    """Whether an entry of this size is there, or one with this label is among those that are being ``written``.

    The size of the latter says nothing: where the file system takes no room in one go they grow.
    """
    begin = f"{content.label}_"
    there = any(_size(file) == content.nbytes for file in folder.glob(f"{begin}*.bin"))
    return there or any(file.name.startswith(begin) for file in written)


def _size(file: Path) -> int:
    """Its bytes; 0 if it is gone meanwhile."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _require_room(content: Content, folder: Path) -> None:
    """Raises DataError if the disk has no room, before anything is decoded."""
    free = shutil.disk_usage(folder).free
    if free >= content.nbytes:
        return
    held = sum(_size(file) for file in folder.glob("*.bin*"))
    older = f", or delete what no run needs there ({held / GIB:.2f} GiB)" if held else ""
    raise DataError(
        f"{content.what} needs {content.nbytes / GIB:.2f} GiB decoded, more than runtime.memory_budget_gib, and the"
        f" disk of {folder} has {free / GIB:.2f} GiB free: set runtime.data_cache to a folder with room{older},"
        f" {content.advice}."
    )


class _Entry:
    """One content in the cache folder."""

    def __init__(self, content: Content, folder: Path, digest: str) -> None:
        self.content, self.folder = content, folder
        self.key = hashlib.sha256(f"{FORMAT}/{digest}/{decoder_digest()}".encode()).hexdigest()
        stem = f"{content.label}_{self.key[:32]}"
        self.data, self.header, self.lock = (folder / f"{stem}.{end}" for end in ("bin", "json", "lock"))

    @contextlib.contextmanager
    def locked(
        self, kind: int, progress: Progress | None, needless: Callable[[], bool] = lambda: False
    ) -> Iterator[bool]:
        """Hold the entry's lock, shared for reading; a folder that cannot be written needs none for that.

        Yields False, and the lock need not be held, once it is ``needless``.
        """
        try:
            descriptor = _open_lock(self.lock)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or kind == fcntl.LOCK_EX:
                raise
            yield True
            return
        try:
            yield _acquire(descriptor, kind, self.data, progress, needless)
        finally:
            os.close(descriptor)

    def header_state(self) -> tuple[int, int, int] | None:
        """What tells this header from one that is written later; None if there is none."""
        try:
            status = self.header.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns

    def overtaken(self, seen: tuple[int, int, int] | None) -> bool:
        """Whether another run has written an entry since its header was ``seen``."""
        return self.header_state() not in (None, seen)

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
        try:
            right = self.data.stat().st_size == self.content.nbytes
        except OSError:
            right = False
        if not right:
            return None, "its size is wrong"
        content = self.map()
        text = f"checking cached {self.content.label} images"
        if _chunk_digests(content, text, progress) != header.get("sha256"):
            return None, "a checksum differs"
        return content, ""

    def map(self) -> Bytes:
        """The content as it lies on disk, uint8 (nbytes,), which cannot be written to."""
        return np.memmap(self.data, np.uint8, mode="r", shape=(self.content.nbytes,))

    def write(self, progress: Progress | None) -> None:
        """Decode into a new file, then take it in."""
        temporary = self.data.with_suffix(".bin.writing")
        for useless in (temporary, self.header, self.data):  # of a run that was killed, or damaged: it takes room
            useless.unlink(missing_ok=True)
        _require_room(self.content, self.folder)
        label = self.content.label
        try:
            with temporary.open("wb+") as file:
                # Room is taken first: a full disk is an error here and would be the process's end in a mapping.
                os.posix_fallocate(file.fileno(), 0, self.content.nbytes)
                content = np.memmap(file, np.uint8, mode="r+", shape=(self.content.nbytes,))
                self.content.fill(content, file.fileno(), progress)
                checksums = _chunk_digests(content, f"computing checksums of {label} images", progress)
                content.flush()
                os.fsync(file.fileno())
            temporary.replace(self.data)
        finally:
            temporary.unlink(missing_ok=True)
        self._write_header({"what": self.content.what, **self._describe(), "sha256": checksums})

    def _write_header(self, header: Mapping[str, Json]) -> None:
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

    def _describe(self) -> JsonObject:
        """The header without its checksums, as JSON gives it back."""
        return {"format": FORMAT, "fingerprint": self.key, "chunk": CHUNK, **self.content.describe}


def _open_lock(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _acquire(descriptor: int, kind: int, data: Path, progress: Progress | None, needless: Callable[[], bool]) -> bool:
    """Wait for the lock, so that the run can be told to leave meanwhile; False if it is ``needless`` by then."""
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return not needless()
        except BlockingIOError:
            if needless():
                return False
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
