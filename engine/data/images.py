"""Folders of images for proxy tasks: any depth, no masks; with classes where each folder is one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine import determinism
from engine.config.schema import ProxyConfig
from engine.data.cache import Content, Tell, Warn, map_content, tensor_of
from engine.data.dataset import SegmentationData
from engine.data.digests import digest_files
from engine.data.limits import check_budget
from engine.data.names import files_below, same
from engine.data.pictures import Bytes, square
from engine.data.processes import squares_in_processes
from engine.data.threads import in_threads, thread_count
from engine.data.values import VOID, Progress
from engine.errors import DataError
from engine.paths import expanded

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
MANY = 50_000
"""Files from which on small ones are decoded in processes. Measured was less: at 30,000 they took 0.92 of the threads'
time, their start included, at 10,000 0.96; the gain grows with the number."""


@dataclass(frozen=True)
class ProxyImages:
    """Images without masks.

    Attributes:
        data: all labels void; every image square.
        targets: int64 (N,), the class of each image; None if the task has none.
        classes: names of the classes, in index order.
    """

    data: SegmentationData
    targets: Tensor | None
    classes: tuple[str, ...]


def load_images(
    config: ProxyConfig,
    seed: int,
    budget: int | None,
    progress: Progress | None,
    cache: Path | None = None,
    warn: Warn | None = None,
    tell: Tell | None = None,
) -> ProxyImages:
    """Decode the folder ``config.images``: each image resized to ``config.image_side`` and cut to its middle square.

    Args:
        config: the recipe's proxy section.
        seed: the run's; chooses ``config.max_images`` of them.
        budget: bytes that may be held in memory; None = no limit.
        progress: told what is done, how far it is and how much there is.
        cache: folder for decoded images that do not fit the budget; None = refuse them.
        warn: told of a cache that was damaged and is made anew.
        tell: told of images that are mapped from the cache, before they are decoded or checked.

    Raises:
        DataError: no such folder, no images, fewer than two classes where classes are needed, a file that is no
            image, or more than the budget or the cache's disk holds.
    """
    root = expanded(config.images)
    files = choose_images(list_images(root), config.max_images, seed)
    content = _content(root, files, config.image_side)
    if cache is None:
        check_budget(content.what, content.nbytes, budget, content.advice)
    classes, targets = image_classes(root, files) if config.kind == "classification" else ((), None)
    shape = (len(files), 3, config.image_side, config.image_side)
    if cache is not None and budget is not None and content.nbytes > budget:
        images, mapped = tensor_of(map_content(content, cache, progress, warn, tell).reshape(shape)), True
    else:
        images, mapped = torch.from_numpy(_decode(files, config.image_side, progress)), False
    void = torch.full((1, 1, 1), VOID, dtype=torch.uint8).expand(len(files), *shape[2:])
    sizes = torch.full((len(files), 2), config.image_side, dtype=torch.int64)
    return ProxyImages(SegmentationData(images, void, sizes, _names(root, files), (), mapped=mapped), targets, classes)


def _names(root: Path, files: list[Path]) -> list[str]:
    return [str(file.relative_to(root)) for file in files]


def _content(root: Path, files: list[Path], side: int) -> Content:
    """What an entry of the data cache holds: all squares, and nothing else."""
    names = hashlib.sha256("\0".join(_names(root, files)).encode(errors="surrogateescape")).hexdigest()

    def digest(progress: Progress | None) -> str:
        found = digest_files(root, files, progress)
        return hashlib.sha256(json.dumps([found, names, side]).encode()).hexdigest()

    def fill(content: Bytes, descriptor: int, progress: Progress | None) -> None:
        _decode(files, side, progress, (content.reshape(len(files), 3, side, side), descriptor))

    return Content(
        label="proxy",
        what=f"{root} ({len(files)} images of {side}x{side})",
        advice="or set proxy.max_images or a smaller proxy.image_side",
        nbytes=3 * len(files) * side**2,
        describe={"images": [len(files), 3, side, side], "names": names},
        digest=digest,
        fill=fill,
    )


def _decode(files: list[Path], side: int, progress: Progress | None, into: tuple[Bytes, int] | None = None) -> Bytes:
    """Squares of all files, uint8 (N, 3, side, side); of many in processes (``benchmarks/bench_decode.py``).

    Args:
        into: what to write, and the descriptor of the file that it maps; None = memory of its own.
    """
    text = "decoding images of the proxy task"
    if len(files) >= MANY and thread_count() > 1 and hasattr(os, "memfd_create"):  # Linux alone has nameless memory
        return squares_in_processes(files, side, text, progress, into[1] if into else None)
    images = into[0] if into else np.empty((len(files), 3, side, side), np.uint8)

    def one(index: int) -> None:
        images[index] = square(files[index], side).transpose(2, 0, 1)

    in_threads(one, len(files), text, progress)
    return images


def list_images(root: Path) -> list[Path]:
    """Pictures at any depth, in order of their paths; what is hidden, and below hidden folders, is passed over.

    Raises:
        DataError: no such folder, or none in it.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder: set proxy.images to a folder of images.")
    files = sorted(file for file in files_below(root) if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        endings = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{root} holds no images ({endings}): set proxy.images to a folder that does.")
    return files


def choose_images(files: list[Path], most: int | None, seed: int) -> list[Path]:
    """All files, or ``most`` of them, in order of their paths."""
    if most is None or most >= len(files):
        return files
    order = torch.randperm(len(files), generator=determinism.generator(seed, "proxy/images"))
    return [files[index] for index in sorted(order[:most].tolist())]


def image_classes(root: Path, files: list[Path]) -> tuple[tuple[str, ...], Tensor]:
    """The first folder below the root names an image's class.

    Raises:
        DataError: an image lies in none, there is one alone, or two have one name.
    """
    parts = [file.relative_to(root).parts for file in files]
    loose = [file for file, part in zip(files, parts, strict=True) if len(part) < 2]
    if loose:
        more = f" ({len(loose)} images do not)" if len(loose) > 1 else ""
        raise DataError(f"{loose[0]} lies in no class folder{more}: classification needs {root}/CLASS/IMAGE.")
    names = tuple(sorted({part[0] for part in parts}))
    _require_distinct(root, names)
    if len(names) < 2:
        raise DataError(f"{root} holds one class only, {names[0]}: classification needs at least two folders.")
    number = {name: index for index, name in enumerate(names)}
    return names, torch.tensor([number[part[0]] for part in parts], dtype=torch.int64)


def _require_distinct(root: Path, names: Sequence[str]) -> None:
    """Raises DataError if two folders have one name but for the form of its letters in Unicode."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(same(name), name)
        if other != name:
            raise DataError(
                f"{root / other} and {name} are one name but for the form of its letters in Unicode:"
                " put the images of one class into one folder."
            )
