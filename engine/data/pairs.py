"""Pairs of an image and an index mask: choosing, checking and decoding them, for every data set that has files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from PIL import Image

from engine.data.mask_values import Cause, likely_cause
from engine.data.masks import Mask, read_mask
from engine.data.names import alike, is_hidden, shown_names
from engine.data.pictures import Bytes, Picture, pixels_of, read_header, read_picture
from engine.data.values import VOID
from engine.errors import DataError
from engine.paths import expanded, is_file, lack

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
OUT = "take it out of the split"
ADVICE = f"replace the file or {OUT}"
"""What to do about a picture that cannot be read."""
SHOWN_VALUES = 4
"""How many wrong values of one mask a sentence names."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Pair:
    """An image and its mask."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class LabelRule:
    """What the values of a mask mean.

    Attributes:
        classes: names in index order.
        meaning: of each value 0 .. 255 its class index, 255 = void, or -1 = not allowed.
        allowed: the values that are allowed, in words, for sentences.
        remedy: what to do about a value that is not, given that value.
        guess: whether users choose the values, so that it is looked for what they did to class indices.
        named: values that the recipe says the meaning of by themselves.
    """

    classes: tuple[str, ...]
    meaning: tuple[int, ...]
    allowed: str
    remedy: Callable[[int], str]
    guess: bool = False
    named: frozenset[int] = frozenset()

    def cause(self, values: Collection[int]) -> Cause | None:
        """What was likely done to class indices so that masks hold these values; None = nothing is wrong, or known."""
        return likely_cause(values, self.meaning, len(self.classes)) if self.guess else None


class WrongValuesError(DataError):
    """A mask holds values that are neither class nor void.

    Attributes:
        pixels: number of pixels of each value that it holds.
        file: the mask.
    """

    def __init__(self, text: str, pixels: Mapping[int, int], file: Path) -> None:
        super().__init__(text)
        self.pixels, self.file = dict(pixels), file


def plain_meaning(num_classes: int, void_labels: Sequence[int]) -> tuple[int, ...]:
    """Values are class indices, except those that mean void."""
    return tuple(VOID if value in void_labels else value if value < num_classes else -1 for value in range(256))


@dataclass(frozen=True)
class Listing:
    """The files of one split, before anything is decoded.

    Attributes:
        root: folder of the data set; fingerprints hold paths relative to it.
        split: train or val.
        pairs: in the order of the decoded data.
        rule: what mask values mean.
        scale: resize factor applied when decoding, 0-1.
        remedy: what to write if a mask is missing, continuing the sentence "write MASK, ...".
        extra: further files that decide what is read: lists, the classes file.
        orphans: masks without an image.
        problems: what is wrong with the list itself, one sentence each; ``pairs`` are what is left without that.
        remarks: looks for what is passed over and should perhaps not be, one sentence each.
    """

    root: Path
    split: str
    pairs: list[Pair]
    rule: LabelRule
    scale: float
    remedy: str
    extra: tuple[Path, ...] = ()
    orphans: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    remarks: Callable[[], list[str]] = list

    def require_sound(self) -> None:
        """Raises DataError with the first problem."""
        if self.problems:
            raise DataError(self.problems[0])


def choose(items: Sequence[Item], limit: int | None, data_seed: int, split: str) -> list[Item]:
    """All items, or ``limit`` of them fixed by ``data_seed`` and split, in their order."""
    if limit is None or limit >= len(items):
        return list(items)
    rng = np.random.default_rng([data_seed, 0 if split == "train" else 1])
    keep = sorted(rng.permutation(len(items))[:limit].tolist())
    return [items[index] for index in keep]


def require_files(pairs: Sequence[Pair], remedy: str) -> None:
    """Check that every image and every mask is there.

    Raises:
        DataError: names the first one that is not, how many are not, and ``remedy`` for a mask.
    """
    lost = [pair for pair in pairs if not is_file(pair.image)]
    if lost:
        more = f" (of {len(pairs)} images {len(lost)} are no files)" if len(lost) > 1 else ""
        what = lack(lost[0].image)
        cure = (
            "put it there or take it out of the list" if what == "does not exist" else f"put a picture there, or {OUT}"
        )
        raise DataError(f"{lost[0].image} {what}{more}: {cure}.")
    bare = [pair for pair in pairs if not is_file(pair.mask)]
    if bare:
        more = f" ({len(bare)} images of {len(pairs)} have none)" if len(bare) > 1 else ""
        near = alike(bare[0].mask)[:SHOWN_VALUES]
        there = f"; or is it {' or '.join(near)} there?" if near else "."
        what = lack(bare[0].mask)
        why = "" if what == "does not exist" else f": {bare[0].mask} {what}"
        raise DataError(f"{bare[0].image} has no mask{more}{why}: write {bare[0].mask}, {remedy}{there}")


def existing_root(root: str, holds: str) -> Path:
    """The folder ``data.root``.

    Raises:
        DataError: it is empty or no folder; ``holds`` says what it should hold.
    """
    if not root:
        raise DataError(f"data.root is empty: write the folder that holds {holds}.")
    path = expanded(root)
    if not path.is_dir():
        raise DataError(f"data.root {path.absolute()} is no folder: write the one that holds {holds}.")
    return path


def below_root(root: Path, key: str, relative: str) -> Path:
    """A path below root; a recipe or a list may come from elsewhere, so it may not point out of it.

    Raises:
        DataError: it would; ``key`` says where it was written.
    """
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise DataError(f"{key} = {relative!r} leaves data.root: write a path below it, without '..'.")
    return root / parts


def require_folder(path: Path, advice: str) -> Path:
    """The folder itself.

    Raises:
        DataError: it is none; names the folders beside it and ``advice``.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder{_names_beside(path)}: {advice}.")
    return path


def _names_beside(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    names = shown_names(entry for entry in path.parent.iterdir() if entry.is_dir())[:8]
    return f" (beside it: {', '.join(names)})" if names else ""


def is_picture(path: Path) -> bool:
    """Whether the name is one of a picture that is not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path.name)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) after resizing, at least one pixel."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) as the picture is shown, from the file's header alone.

    Raises:
        DataError: not a readable picture.
    """
    header = read_header(path, ADVICE)
    return header.height, header.width


def load_pair(pair: Pair, rule: LabelRule, scale: float) -> tuple[Bytes, Bytes]:
    """Decode, check and resize: image uint8 (h, w, 3) bilinear, mask uint8 (h, w) nearest, 255 = void.

    Both are turned as their EXIF orientation says.

    Raises:
        DataError: unreadable, wrong mode, different sizes, or a mask value that is neither class nor void.
    """
    return fitted(*read_pair(pair), rule, scale)


def read_pair(pair: Pair) -> tuple[Picture, Mask]:
    """Image and mask as their files hold them, of one size.

    Raises:
        DataError: unreadable, a mask of a wrong mode, or different sizes.
    """
    image, mask = read_picture(pair.image, ADVICE), read_mask(pair.mask, ADVICE)
    _require_same_size(image, mask.picture)
    return image, mask


def fitted(image: Picture, mask: Mask, rule: LabelRule, scale: float) -> tuple[Bytes, Bytes]:
    """What ``load_pair`` returns, of what ``read_pair`` has read.

    Raises:
        DataError: an image of a wrong mode, or a mask value that is neither class nor void.
    """
    picture = image.rgb("an 8-bit colour or grey picture")
    indices = check_indices(mask.meant(rule.meaning, rule.named), mask.picture.file, rule)
    height, width = scaled_size((picture.height, picture.width), scale)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        indices = np.asarray(Image.fromarray(indices).resize((width, height), Image.Resampling.NEAREST))
    return pixels_of(picture), indices


def _require_same_size(image: Picture, mask: Picture) -> None:
    """Raises DataError if they differ; where a tag has turned one of them, that is told."""
    if image.image.size == mask.image.size:
        return
    has, have = (f"{picture.image.width}x{picture.image.height}{_turned(picture)}" for picture in (mask, image))
    raise DataError(f"{mask.file} is {has} but {image.file} is {have}: write masks of the same size as their images.")


def _turned(picture: Picture) -> str:
    if picture.orientation == 1:
        return ""
    return f" (turned as its EXIF orientation {picture.orientation} says, as viewers show it)"


def check_indices(indices: Bytes, path: Path, rule: LabelRule) -> Bytes:
    """Map mask values to class indices and 255, and refuse those that are neither.

    Raises:
        WrongValuesError: names the file and its values that are not allowed, with their numbers of pixels, and what
            was likely done to it.
    """
    table, mark = _table(rule.meaning)
    result: Bytes = table.take(indices)
    if mark is not None and bool((result == mark).any()):
        counts = np.bincount(indices.ravel(), minlength=256)
        wrong = np.flatnonzero((counts > 0) & (np.array(rule.meaning) < 0)).tolist()
        found = [f"{v} ({counts[v]} pixels, {100 * counts[v] / indices.size:.3g} %)" for v in wrong[:SHOWN_VALUES]]
        more = f" and {len(wrong) - SHOWN_VALUES} more" if len(wrong) > SHOWN_VALUES else ""
        present = np.flatnonzero(counts).tolist()
        cause = rule.cause(present)
        first = f"{cause.text}; if that is not so, " if cause else ""
        advice = f"{rule.allowed}: {first}{rule.remedy(wrong[0])}"
        raise WrongValuesError(
            f"{path} holds the value {', '.join(found)}{more} but {advice}.", {v: int(counts[v]) for v in present}, path
        )
    return result


@lru_cache(maxsize=8)
def _table(meaning: tuple[int, ...]) -> tuple[Bytes, int | None]:
    """The class index of each value 0 .. 255, and what stands there for values that are not allowed, if there are any.

    Where one of 256 values is not allowed, the others mean 255 things at most: there is always a mark left.
    """
    mark = next((value for value in range(256) if value not in meaning), None) if -1 in meaning else None
    return np.array([mark if value < 0 else value for value in meaning], np.uint8), mark
