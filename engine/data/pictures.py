"""The one reader of pictures: images, masks, images of proxy tasks, predictions. Nothing else of the engine opens any.

What it promises: a picture is turned as its EXIF orientation says, as every viewer shows it, and so is the size that
its header gives; of several frames the first is read; transparency is left out, the colours are those that are stored;
16 bits become 8 by their upper byte. Needs no torch, so that processes that decode start quickly.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.errors import DataError

Bytes = NDArray[np.uint8]
READ_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError),
    # Of damaged headers: sizes that are only claimed, tables without entries, values of another kind.
    *(MemoryError, OverflowError, TypeError, AttributeError, LookupError, ZeroDivisionError, NotImplementedError),
)
"""What Pillow raises on files that are missing, cut short, not pictures, damaged, or absurdly large."""
RGB_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
"""Modes of 8 bits that Pillow makes RGB of without loss but for transparency."""
DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
"""Grey of 16 bits; of PNG files before Pillow 11 it is ``I``."""
MEGA = 1_000_000
MEGAPIXELS = 179.0
"""The largest picture until ``allow`` says something else, millions of pixels."""
PILLOWS_LIMIT = 89_478_485
"""Pixels; Pillow refuses twice as many, also of what it makes itself."""
ORIENTATION, TIFF_WIDTH, TIFF_HEIGHT, TIFF_PHOTOMETRIC = 0x0112, 256, 257, 262
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes the picture upright, by its orientation; 1 and all else = nothing."""
_SIDEWAYS = frozenset({5, 6, 7, 8})
_LATE_WORDS = (b"XML:com.adobe.xmp\0", b"Raw profile type ")
"""Keywords of a PNG's texts that may hold an orientation."""


class _Limit:
    """The largest picture that this process reads, millions of pixels."""

    megapixels = MEGAPIXELS


def allow(megapixels: float) -> None:
    """Set the largest picture that this process reads: ``runtime.max_megapixels``."""
    _Limit.megapixels = megapixels
    Image.MAX_IMAGE_PIXELS = max(PILLOWS_LIMIT, int(megapixels * MEGA))
    # What is larger is refused here in a sentence; Pillow would warn up to twice the limit.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def allowed() -> float:
    """The same, millions of pixels."""
    return _Limit.megapixels


allow(MEGAPIXELS)


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before it is decoded.

    Attributes:
        width: of the picture as it is shown, pixels: turned.
        height: of the same.
        orientation: its EXIF tag, 1 to 8; 1 = as it is stored.
    """

    width: int
    height: int
    orientation: int


@dataclass(frozen=True)
class Picture:
    """A decoded picture, of several frames the first, turned as viewers show it.

    Attributes:
        image: its pixels.
        file: where it was read from.
        format: Pillow's name of the file's format, whatever the file is called.
        compression: of a TIFF, by Pillow's name; "" = none, or another format.
        white_is_zero: a TIFF whose grey values say so; Pillow turns those of 8 bits and less over, and no others.
        raw_mode: Pillow's name of how its pixels are stored, such as ``L;4``; "" = not known.
        orientation: the EXIF tag by which it was turned, 1 to 8; 1 = it is as it was stored.
    """

    image: Image.Image
    file: Path
    format: str
    compression: str
    white_is_zero: bool
    raw_mode: str
    orientation: int

    def is_transparent(self) -> bool:
        """Whether a pixel is: what ``rgb`` leaves out."""
        if self.image.mode not in ("LA", "PA", "RGBA") and "transparency" not in self.image.info:
            return False
        lowest, _ = self.image.convert("RGBA").getchannel("A").getextrema()
        return lowest != 255

    def rgb(self, wanted: str) -> Image.Image:
        """The picture in mode RGB: grey and palettes in their colours, transparency left out, 16 bits by their upper
        byte.

        Raises:
            DataError: it has another mode, such as F; ``wanted`` says what to write, continuing "write ...".
        """
        if self.image.mode == "RGB":
            return self.image
        if is_deep(self.image, self.format):
            upper = np.asarray(self.image).astype(np.uint32) >> (4 if self.raw_mode == "I;12" else 8)
            shown = 255 - upper if self.white_is_zero else upper
            return Image.fromarray(shown.astype(np.uint8)).convert("RGB")
        if self.image.mode not in RGB_MODES:
            raise DataError(f"{self.file} is a picture of mode {self.image.mode}: write {wanted}.")
        with _told(self.file, f"write {wanted}"):
            clear = isinstance(self.image.info.get("transparency"), bytes)  # of this Pillow warns on the direct way
            return (self.image.convert("RGBA") if clear else self.image).convert("RGB")


def is_deep(image: Image.Image, format: str) -> bool:
    """Whether a picture is grey of 16 bits."""
    return image.mode in DEEP_MODES or (image.mode == "I" and format == "PNG")


def read_header(file: Path, advice: str) -> Header:
    """Size and orientation from the file's header, nothing decoded.

    Args:
        advice: what to do if that fails, continuing "FILE cannot be read as a picture (REASON): ...".

    Raises:
        DataError: no readable picture.
    """
    with _opened(file, advice) as picture:
        orientation = _orientation(picture, file)
        width, height = picture.size
        tags = getattr(picture, "tag_v2", None)
        if tags is not None and TIFF_WIDTH in tags and TIFF_HEIGHT in tags:  # ``size`` is turned by some tags already
            width, height = int(tags[TIFF_WIDTH]), int(tags[TIFF_HEIGHT])
        if orientation in _SIDEWAYS:
            width, height = height, width
        return Header(width, height, orientation)


def read_picture(file: Path, advice: str, draft: int | None = None) -> Picture:
    """Decode and turn a picture.

    Args:
        advice: as for ``read_header``.
        draft: a JPEG may be decoded smaller, by a power of two, but no side below this, pixels; None = in full.

    Raises:
        DataError: no readable picture.
    """
    with _opened(file, advice) as picture:
        if draft is not None:
            picture.draft("RGB", (draft, draft))
        raw_mode = _raw_mode(picture)
        inverted = getattr(picture, "tag_v2", {}).get(TIFF_PHOTOMETRIC) == 0
        before = _tag(picture) if picture.format == "TIFF" else 1  # Pillow turns these itself, and takes the tag away
        picture.load()  # what is closed after it is the file alone
        orientation = _tag(picture)
        turn = _TURNS.get(orientation)
        image = picture if turn is None else picture.transpose(turn)
        compression = str(picture.info.get("compression", "")) if picture.format == "TIFF" else ""
        return Picture(image, file, str(picture.format), compression, inverted, raw_mode, max(before, orientation))


def has_frames(file: Path) -> bool:
    """Whether a readable picture is the first of several, as in TIFF, GIF and animated WebP and PNG.

    A camera's MPO counts as one: what follows in it are previews, depths and gains of the same picture.
    """
    with _opened(file, "") as picture:
        try:
            return picture.format != "MPO" and int(getattr(picture, "n_frames", 1)) > 1
        except READ_ERRORS:
            return True  # what follows is damaged, and there


def pixels_of(picture: Image.Image) -> Bytes:
    """An RGB picture as uint8 (h, w, 3), in memory plane after plane, as data sets hold it."""
    planes = np.empty((3, picture.height, picture.width), np.uint8)
    for plane, band in zip(planes, "RGB", strict=True):
        plane[:] = np.frombuffer(picture.tobytes("raw", band), np.uint8).reshape(plane.shape)
    return planes.transpose(1, 2, 0)


def square(file: Path, side: int) -> Bytes:
    """uint8 (side, side, 3): shorter side resized to ``side``, the middle cut out.

    Raises:
        DataError: the file is no readable picture.
    """
    picture = read_picture(file, "replace or remove it", side).rgb("an 8-bit colour or grey picture")
    factor = side / min(picture.size)
    size = (max(side, round(picture.width * factor)), max(side, round(picture.height * factor)))
    if size[0] * size[1] > 2 * PILLOWS_LIMIT:  # a hair: what is cut away would take more memory than there is
        return pixels_of(_middle(picture, side))
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    if size != (side, side):
        picture = picture.crop((left, top, left + side, top + side))
    return pixels_of(picture)


def _middle(picture: Image.Image, side: int) -> Image.Image:
    """The middle square, cut out before it is resized."""
    shorter = min(picture.size)
    left, top = (picture.width - shorter) // 2, (picture.height - shorter) // 2
    box = (left, top, left + shorter, top + shorter)
    return picture.resize((side, side), Image.Resampling.BILINEAR, box=box)


@contextmanager
def _opened(file: Path, advice: str) -> Iterator[Image.Image]:
    """A picture whose header was read; what goes wrong with it until it is closed is told in a sentence."""
    with _told(file, advice):
        if file.exists() and not file.is_file():
            raise DataError(f"{file} is no file: {advice}.")  # a pipe would be waited for
        with Image.open(file) as picture:
            if picture.width * picture.height > allowed() * MEGA:
                raise _too_large(file, picture.width * picture.height, advice)
            yield picture


@contextmanager
def _told(file: Path, advice: str) -> Iterator[None]:
    """What Pillow raises meanwhile is told in a sentence."""
    try:
        yield
    except Image.DecompressionBombError as error:
        claimed = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(file, int(claimed[1]) if claimed else 0, advice) from None
    except READ_ERRORS as error:
        reason = str(error).replace(str(file), file.name) or type(error).__name__
        raise DataError(f"{file} cannot be read as a picture ({reason}): {advice}.") from None


def _too_large(file: Path, pixels: int, advice: str) -> DataError:
    has = f"has {pixels / MEGA:.6g} megapixels, more" if pixels else "is larger"
    return DataError(
        f"{file} {has} than runtime.max_megapixels = {allowed():g}: raise that if there is memory for it, or {advice}."
    )


def _raw_mode(picture: Image.Image) -> str:
    """How the pixels of a picture that is not decoded yet are stored."""
    tiles = getattr(picture, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _orientation(picture: Image.Image, file: Path) -> int:
    """The tag of a picture that is not decoded yet."""
    if picture.format == "PNG" and "exif" not in picture.info and _has_late_tags(file):
        picture.load()
    return _tag(picture)


def _tag(picture: Image.Image) -> int:
    """The orientation, 1 to 8; 1 also where it is missing, no such number, or in a damaged block."""
    try:
        # Not the PNG reader's own, which decodes the picture first.
        value = Image.Image.getexif(picture).get(ORIENTATION, 1)
    except READ_ERRORS:
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _has_late_tags(file: Path) -> bool:
    """Whether a PNG has something behind its pixels that may hold an orientation: only lengths and names are read."""
    behind = False
    with file.open("rb") as opened:
        opened.seek(8)
        while len(head := opened.read(8)) == 8:
            (length,), name = struct.unpack(">I", head[:4]), head[4:]
            if name == b"IEND":
                break
            behind = behind or name == b"IDAT"
            word = opened.read(min(length, 32)) if behind and name in (b"iTXt", b"zTXt", b"tEXt") else b""
            if behind and (name == b"eXIf" or word.startswith(_LATE_WORDS)):
                return True
            opened.seek(length - len(word) + 4, 1)
    return False
