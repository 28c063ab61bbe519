"""Folders of images for proxy tasks: any depth, no masks; with classes where each folder is one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine import determinism
from engine.config.schema import ProxyConfig
from engine.data.dataset import VOID, Progress, SegmentationData
from engine.data.limits import check_budget
from engine.data.pictures import Bytes, square
from engine.data.processes import squares_in_processes
from engine.data.threads import in_threads, thread_count
from engine.errors import DataError

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


def load_images(config: ProxyConfig, seed: int, budget: int | None, progress: Progress | None) -> ProxyImages:
    """Decode the folder ``config.images``: each image resized to ``config.image_side`` and cut to its middle square.

    Raises:
        DataError: no such folder, no images, fewer than two classes where classes are needed, a file that is no
            image, or more than the budget holds.
    """
    root = Path(config.images).expanduser()
    files = _choose(list_images(root), config.max_images, seed)
    side = config.image_side
    what = f"{root} ({len(files)} images of {side}x{side})"
    check_budget(what, 3 * len(files) * side**2, budget, "or set proxy.max_images or a smaller proxy.image_side")
    classes, targets = _classes(root, files) if config.kind == "classification" else ((), None)
    images = _decode(files, side, progress)
    void = torch.full((1, 1, 1), VOID, dtype=torch.uint8).expand(len(files), side, side)
    sizes = torch.full((len(files), 2), side, dtype=torch.int64)
    names = [str(file.relative_to(root)) for file in files]
    return ProxyImages(SegmentationData(torch.from_numpy(images), void, sizes, names, ()), targets, classes)


def _decode(files: list[Path], side: int, progress: Progress | None) -> Bytes:
    """Squares of all files, uint8 (N, 3, side, side); of many in processes (``benchmarks/bench_decode.py``)."""
    text = "decoding images of the proxy task"
    if len(files) >= MANY and thread_count() > 1 and hasattr(os, "memfd_create"):  # Linux alone has nameless memory
        return squares_in_processes(files, side, text, progress)
    images = np.empty((len(files), 3, side, side), np.uint8)

    def one(index: int) -> None:
        images[index] = square(files[index], side).transpose(2, 0, 1)

    in_threads(one, len(files), text, progress)
    return images


def list_images(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root} is no folder: set proxy.images to a folder of images.")
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        endings = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{root} holds no images ({endings}): set proxy.images to a folder that does.")
    return files


def _choose(files: list[Path], most: int | None, seed: int) -> list[Path]:
    """All files, or ``most`` of them, in order of their paths."""
    if most is None or most >= len(files):
        return files
    order = torch.randperm(len(files), generator=determinism.generator(seed, "proxy/images"))
    return [files[index] for index in sorted(order[:most].tolist())]


def _classes(root: Path, files: list[Path]) -> tuple[tuple[str, ...], Tensor]:
    """The first folder below the root names an image's class."""
    parts = [file.relative_to(root).parts for file in files]
    loose = next((file for file, part in zip(files, parts, strict=True) if len(part) < 2), None)
    if loose is not None:
        raise DataError(f"{loose} lies in no class folder: classification needs {root}/CLASS/IMAGE.")
    names = tuple(sorted({part[0] for part in parts}))
    if len(names) < 2:
        raise DataError(f"{root} holds one class only, {names[0]}: classification needs at least two folders.")
    number = {name: index for index, name in enumerate(names)}
    return names, torch.tensor([number[part[0]] for part in parts], dtype=torch.int64)
