"""The fingerprint of a data set: what it holds, wherever it lies."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from engine.config.schema import DataConfig
from engine.data.digests import digest_files, file_state
from engine.data.images import list_images
from engine.data.listings import LISTINGS
from engine.data.pictures import read_header
from engine.data.threads import in_threads
from engine.data.values import Progress
from engine.errors import DataError

_known: dict[Path, tuple[tuple[int, int, int, int], int]] = {}
"""Orientation of each picture whose header was read, with the state its file had."""


def fingerprint(config: DataConfig, progress: Progress | None = None) -> str:
    """What identifies a data set: SHA-256, hexadecimal, of every file of both splits and of the data section.

    Files count with their path below ``data.root``, size and content. ``data.root`` itself does not count, so that
    data may move; neither do times. The content of ``shapes`` follows from the data section alone.

    Raises:
        DataError: a list has a problem, or a file or folder is missing or cannot be read.
    """
    files: dict[str, list[tuple[str, int, str]]] = {}
    turned: dict[str, int] = {}
    for split in ("train", "val"):
        if config.kind in LISTINGS:
            listing = LISTINGS[config.kind](config, split)
            listing.require_sound()
            paths = [path for pair in listing.pairs for path in (pair.image, pair.mask)]
            files[split] = digest_files(listing.root, [*paths, *listing.extra], progress)
            turned |= _turned(listing.root, paths, progress)
    content = {"data": config.model_dump(mode="json", exclude={"root"}), "files": files}
    if turned:
        content["turned"] = turned
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _turned(root: Path, paths: Sequence[Path], progress: Progress | None) -> dict[str, int]:
    """The EXIF orientation of each picture that has one, by its path below root; of those that can be read."""

    found = in_threads(lambda index: _orientation(paths[index]), len(paths), "reading headers of the data", progress)
    return {os.path.relpath(path, root): tag for path, tag in zip(paths, found, strict=True) if tag != 1}


def _orientation(path: Path) -> int:
    """The tag of a picture, 1 if it cannot be read: whoever decodes it says so. Remembered until the file changes."""
    try:
        state = file_state(path.stat())
        known = _known.get(path)
        if known is not None and known[0] == state:
            return known[1]
        _known[path] = (state, read_header(path, "").orientation)
        return _known[path][1]
    except (OSError, DataError):
        return 1


def images_fingerprint(folder: Path, progress: Progress | None = None) -> str:
    """What identifies a folder of images: SHA-256, hexadecimal, of path below it, size and content of each.

    Raises:
        DataError: there is no such folder, or a file cannot be read.
    """
    total = hashlib.sha256()
    for name, size, digest in digest_files(folder, list_images(folder), progress):
        total.update(f"{name}\0{size}\0{digest}\n".encode(errors="surrogateescape"))
    return total.hexdigest()
