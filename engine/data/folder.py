"""Any folder of images and index masks: ROOT/images/SPLIT/NAME.jpg|png, ROOT/labels/SPLIT/NAME.png, classes.txt."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.config.schema import FolderData
from engine.data.dataset import MAX_CLASSES, VOID, Progress, SegmentationData
from engine.data.limits import check_budget
from engine.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
IMAGE_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"}
MASK_MODES = {"L", "P"}
READ_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on files that are missing, cut short, not pictures, or absurdly large."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    name: str
    image: Path
    mask: Path


def class_names(config: FolderData) -> tuple[str, ...]:
    """Read the classes file: one name a line, in index order; blank lines at the end do not count.

    Raises:
        DataError: no such file, not text, empty, a blank line between names, a name twice, or too many.
    """
    path = _below_root(config, "classes", config.classes)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist: write one class name a line, in index order, or set data.classes."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable text file ({error}): write one class name a line.") from None
    names = [line.strip() for line in text.rstrip().splitlines()]
    if not names:
        raise DataError(f"{path} is empty: write one class name a line, in index order.")
    if len(names) > MAX_CLASSES:
        raise DataError(f"{path} has {len(names)} lines: masks of 8 bits hold at most {MAX_CLASSES} classes.")
    for number, name in enumerate(names, 1):
        if not name:
            raise DataError(f"{path} line {number} is blank: every line up to the last names one class.")
        if name in names[: number - 1]:
            raise DataError(f"{path} line {number} repeats {name!r}: give every class a name of its own.")
    return tuple(names)


def build(
    config: FolderData,
    split: str,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> SegmentationData:
    """Decode one split with a pool of threads.

    Raises:
        DataError: a file or folder is missing, unreadable or does not fit its partner, or the budget is exceeded.
    """
    classes = class_names(config)
    pairs = list_pairs(config, split)
    sizes = [scaled_size(read_size(pair.image), config.scale) for pair in pairs]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    check_budget(
        f"{config.root}, split {split} ({len(pairs)} images of up to {width}x{height})",
        4 * len(pairs) * height * width,
        budget_bytes,
        f"or set data.max_{split} or a smaller data.scale",
    )
    images = torch.zeros((len(pairs), 3, height, width), dtype=torch.uint8)
    labels = torch.full((len(pairs), height, width), VOID, dtype=torch.uint8)

    def decode(index: int) -> None:
        picture, mask = load_pair(pairs[index], config, len(classes))
        h, w = mask.shape
        images[index, :, :h, :w] = torch.from_numpy(picture).permute(2, 0, 1)
        labels[index, :h, :w] = torch.from_numpy(mask)

    _run_pool(decode, len(pairs), f"decoding {split} images", progress)
    return SegmentationData(
        images=images,
        labels=labels,
        sizes=torch.tensor(sizes, dtype=torch.int64),
        names=[pair.name for pair in pairs],
        classes=classes,
    )


def _run_pool(work: Callable[[int], None], count: int, text: str, progress: Progress | None) -> None:
    """Run ``work(0) .. work(count - 1)`` in threads; the first error in file order is the one raised."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(work, index) for index in range(count)]
        try:
            for done, future in enumerate(futures, 1):
                future.result()
                if progress and (done % 16 == 0 or done == count):
                    progress(text, done, count)
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def list_pairs(config: FolderData, split: str) -> list[Pair]:
    """Images of a split with their masks, by name; with max_train or max_val a choice fixed by data_seed.

    Raises:
        DataError: root or split folder missing, no image, two images of one name, or an image without mask.
    """
    pairs = choose_pairs(config, split)
    require_masks(pairs)
    return pairs


def choose_pairs(config: FolderData, split: str) -> list[Pair]:
    """As ``list_pairs``, without looking for the masks."""
    image_dir, label_dir = split_folders(config, split)
    images = list_images(image_dir)
    limit = config.max_train if split == "train" else config.max_val
    if limit is not None and limit < len(images):
        rng = np.random.default_rng([config.data_seed, 0 if split == "train" else 1])
        keep = sorted(rng.permutation(len(images))[:limit].tolist())
        images = [images[i] for i in keep]
    return [Pair(path.stem, path, label_dir / f"{path.stem}.png") for path in images]


def require_masks(pairs: Sequence[Pair]) -> None:
    """Check that every mask is there.

    Raises:
        DataError: names the first one that is not, and how many are not.
    """
    missing = [pair for pair in pairs if not pair.mask.is_file()]
    if missing:
        more = f" ({len(missing)} images of {len(pairs)} have none)" if len(missing) > 1 else ""
        raise DataError(
            f"{missing[0].image} has no mask{more}: write {missing[0].mask}, an 8-bit PNG of class indices, "
            "or set data.labels."
        )


def split_folders(config: FolderData, split: str) -> tuple[Path, Path]:
    """The image folder and the label folder of ``train`` or ``val``.

    Raises:
        DataError: root or one of them is missing.
    """
    name = config.train_split if split == "train" else config.val_split
    folders = []
    for key, template in (("images", config.images), ("labels", config.labels)):
        path = _below_root(config, key, template.replace("{split}", name))
        if not path.is_dir():
            there = _names_beside(path)
            raise DataError(f"{path} is no folder{there}: set data.{key} or data.{split}_split to what is there.")
        folders.append(path)
    return folders[0], folders[1]


def _names_beside(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir())[:8]
    return f" (beside it: {', '.join(names)})" if names else ""


def list_images(folder: Path) -> list[Path]:
    """Picture files of a folder, by name; hidden files and other suffixes are passed over.

    Raises:
        DataError: none there, or two pictures that would share one mask.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    found.sort(key=lambda path: path.name)
    if not found:
        raise DataError(f"{folder} holds no image: put {', '.join(IMAGE_SUFFIXES[:3])} files there or set data.images.")
    stems: dict[str, Path] = {}
    for path in found:
        if path.stem in stems:
            raise DataError(f"{stems[path.stem]} and {path.name} would share one mask: rename or remove one of them.")
        stems[path.stem] = path
    return found


def _below_root(config: FolderData, key: str, relative: str) -> Path:
    """A path below root; a recipe may come from elsewhere, so it may not point out of it."""
    if not config.root:
        raise DataError("data.root is empty: write the folder that holds images, labels and the classes file.")
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DataError(f"data.root {root.absolute()} is no folder: write the one that holds images and labels.")
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise DataError(f"data.{key} = {relative!r} leaves data.root: write a path below it, without '..'.")
    return root / parts


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) after resizing, at least one pixel."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header alone.

    Raises:
        DataError: not a readable picture.
    """
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except READ_ERRORS as error:
        raise _unreadable(path, error) from None


def load_pair(pair: Pair, config: FolderData, num_classes: int) -> tuple[Bytes, Bytes]:
    """Decode, check and resize: image uint8 (h, w, 3) bilinear, mask uint8 (h, w) nearest, 255 = void.

    Raises:
        DataError: unreadable, wrong mode, different sizes, or a mask value that is neither class nor void.
    """
    picture = _open(pair.image, IMAGE_MODES, "an 8-bit colour or grey picture")
    mask = _open(pair.mask, MASK_MODES, "an 8-bit PNG of class indices (mode L or P)")
    if picture.size != mask.size:
        raise DataError(
            f"{pair.mask} is {mask.width}x{mask.height} but {pair.image} is {picture.width}x{picture.height}: "
            "write masks of the same size as their images."
        )
    indices = check_indices(np.asarray(mask, np.uint8), pair.mask, config.void_labels, num_classes)
    picture = picture.convert("RGB")
    height, width = scaled_size((picture.height, picture.width), config.scale)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        indices = np.asarray(Image.fromarray(indices).resize((width, height), Image.Resampling.NEAREST))
    return np.array(picture, np.uint8), np.array(indices, np.uint8)


def check_indices(indices: Bytes, path: Path, void_labels: Sequence[int], num_classes: int) -> Bytes:
    """Map void labels to 255 and refuse values that are no class.

    Raises:
        DataError: names the file, the first value that is out of range, and its share of pixels.
    """
    table = np.arange(256, dtype=np.uint8)
    known = np.zeros(256, bool)
    known[:num_classes] = True
    for value in void_labels:
        if 0 <= value <= 255:
            table[value], known[value] = VOID, True
    counts = np.bincount(indices.ravel(), minlength=256)
    wrong = np.flatnonzero((counts > 0) & ~known)
    if len(wrong):
        value = int(wrong[0])
        share = 100 * counts[value] / indices.size
        voids = ", ".join(str(v) for v in (*void_labels, value))
        raise DataError(
            f"{path} holds the value {value} ({share:.2g} % of its pixels) but there are {num_classes} classes "
            f"(0 to {num_classes - 1}): if {value} means void, set data.void_labels to [{voids}]; "
            "else add the class to the classes file."
        )
    return table[indices]


def _open(path: Path, modes: set[str], wanted: str) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            mode = picture.mode
            result = picture.copy()
    except READ_ERRORS as error:
        raise _unreadable(path, error) from None
    if mode not in modes:
        raise DataError(f"{path} is a picture of mode {mode}: write {wanted}.")
    return result


def _unreadable(path: Path, error: BaseException) -> DataError:
    reason = str(error).replace(str(path), path.name) or type(error).__name__
    return DataError(f"{path} cannot be read as a picture ({reason}): replace the file or take it out of the split.")
