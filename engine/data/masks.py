"""Masks: the values that a file of class indices holds, whatever its depth; or why it holds none. Needs no torch."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from engine.data.pictures import Bytes, Picture, is_deep, read_picture
from engine.errors import DataError

WANTED = "an 8-bit PNG of class indices (mode L or P)"
COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "JPEG2000": "JPEG 2000", "AVIF": "AVIF"}
LOSSY_IN_TIFF = {"jpeg": "JPEG", "tiff_jpeg": "JPEG", "webp": "WebP"}
"""Encodings that give other values than were written, by Pillow's names."""
STEPS = {"1": 255, "2": 85, "4": 17}
"""By bits of a sample: its factor as grey from 0 to 255. Pillow applies those of 2 and 4 bits."""


@dataclass(frozen=True)
class Mask:
    """A mask as its file holds it, turned as its orientation says.

    Attributes:
        picture: what was decoded.
        values: uint8 (h, w), before any of them gets a meaning.
        step: of grey of 1, 2 and 4 bits: by what a value is multiplied if it is a grey; 1 = there is one reading.
    """

    picture: Picture
    values: Bytes
    step: int

    def meant(self, meaning: Sequence[int], named: Collection[int] = ()) -> Bytes:
        """The values, where those of few bits may also be greys: programs that shrink a PNG without loss make one bit
        of 0 and 255, and four of multiples of 17.

        Args:
            meaning: of each value 0 .. 255 its class, 255 = void, or -1 = not allowed.
            named: values that the recipe speaks of by themselves, which decides between the readings.

        Raises:
            DataError: both would be allowed, and are not the same.
        """
        if self.step == 1 or not self.values.any():
            return self.values
        highest = int(self.values.max())
        greys = self.values * np.uint8(self.step)
        spoken = [set(np.unique(found).tolist()) - {0} <= set(named) for found in (self.values, greys)]
        if spoken[0] != spoken[1]:
            return self.values if spoken[0] else greys
        allowed = [all(meaning[value] >= 0 for value in np.unique(found)) for found in (self.values, greys)]
        two_classes = self.step == STEPS["1"] and meaning[1] == 1 and 2 not in meaning
        if allowed == [True, True] and not two_classes:
            bits = next(bits for bits, step in STEPS.items() if step == self.step)
            raise DataError(
                f"{self.picture.file} is grey of {bits} bit{'' if bits == '1' else 's'}, where {highest} may mean"
                f" {highest} or {highest * self.step}: write {WANTED}."
            )
        return greys if allowed == [False, True] else self.values


def read_mask(file: Path, advice: str) -> Mask:
    """The values of a mask: palette indices, or grey values of 1, 2, 4, 8 or 16 bits as they stand in the file.

    Args:
        advice: what to do about a file that cannot be read, as for ``read_picture``.

    Raises:
        DataError: no readable picture, one whose encoding changes values, one of colours or with transparency, or
            values above 255.
    """
    picture = read_picture(file, advice)
    _require_exact(picture)
    mode, (step, inverted) = picture.image.mode, _samples(picture)
    if inverted or picture.white_is_zero:
        raise DataError(f"{picture.file} stores white as 0 (photometric interpretation 0): write {WANTED}.")
    if mode == "1":
        return Mask(picture, np.asarray(picture.image).astype(np.uint8), step)
    if mode in ("L", "P"):
        values = np.asarray(picture.image, np.uint8)
        return Mask(picture, values if step == 1 else values // np.uint8(step), step)
    if is_deep(picture.image, picture.format) or mode == "I":
        return Mask(picture, _narrowed(picture), step)
    raise DataError(f"{picture.file} is a picture of mode {mode}: write {WANTED}{_remedy(picture)}.")


def _require_exact(picture: Picture) -> None:
    """Raises DataError if the encoding changes values, whatever the file is called."""
    encoding = LOSSY.get(picture.format) or LOSSY_IN_TIFF.get(picture.compression, "")
    if picture.format == "WEBP" and _is_lossy_webp(picture.file):
        encoding = "lossy WebP"
    if encoding:
        raise DataError(
            f"{picture.file} is encoded as {encoding}, which changes values: about a tenth of the pixels of such masks"
            " have another class than was drawn. Convert the original to PNG; converting this file keeps the damage."
        )


def _is_lossy_webp(file: Path) -> bool:
    """Whether the first frame is; only the heads of chunks are read."""
    with file.open("rb") as opened:
        opened.seek(12)
        while len(head := opened.read(8)) == 8:
            name, (length,) = head[:4], struct.unpack("<I", head[4:])
            if name in (b"VP8 ", b"VP8L"):
                return name == b"VP8 "
            # The chunks of an animation's frame stand inside of it, behind 16 bytes.
            opened.seek(16 if name == b"ANMF" else length + length % 2, 1)
    return True


def _samples(picture: Picture) -> tuple[int, bool]:
    """The step of a grey sample, and whether white is 0, from raw modes such as ``L;4``, ``1;I`` and ``L;2IR``."""
    mode, (kind, _, form) = picture.image.mode, picture.raw_mode.partition(";")
    if mode == "1":
        return STEPS["1"], "I" in form
    if mode != "L" or kind != "L":
        return 1, False
    return STEPS.get(form[:1], 1), "I" in form


def _narrowed(picture: Picture) -> Bytes:
    """Values of more than 8 bits, where none is above 255."""
    values = np.asarray(picture.image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 255:
        how = ": they are 8-bit values times 257, so divide by it" if low >= 0 and not (values % 257).any() else ""
        raise DataError(
            f"{picture.file} holds values from {low} to {high}, of more than 8 bits{how}: write {WANTED},"
            " with 255 for void."
        )
    return values.astype(np.uint8)


def _remedy(picture: Picture) -> str:
    """How to make a mask of what is none, continuing "write an 8-bit PNG of class indices (mode L or P)"."""
    image = picture.image
    if image.mode == "LA":
        return f", without transparency: {_channel('L')}"
    if image.mode not in COLOUR_MODES:
        return ""
    if image.mode not in ("RGB", "RGBA") or not _is_grey(image):
        return ", not one of colours: each colour is to become the index of its class"
    if ";16" in picture.raw_mode:
        return ", not one of colours: its planes are alike, write the values of one of them as 8 bits"
    return f", not one of colours: its planes are alike, so keep one: {_channel('R')}"


def _channel(name: str) -> str:
    return f'with Pillow Image.open(FILE).getchannel("{name}").save(FILE)'


def _is_grey(image: Image.Image) -> bool:
    planes = np.asarray(image)[..., :3]
    return bool((planes == planes[..., :1]).all())
