"""Pictures as arrays. Needs no torch, so that processes that decode start quickly."""

from __future__ import annotations

import struct
import zlib
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
    try:
        with Image.open(file) as opened:
            opened.draft("RGB", (side, side))
            opened.load()
        picture = opened if opened.mode == "RGB" else opened.convert("RGB")
        factor = side / min(picture.size)
        size = (max(side, round(picture.width * factor)), max(side, round(picture.height * factor)))
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        if size != (side, side):
            picture = picture.crop((left, top, left + side, top + side))
        return pixels_of(picture)
    except READ_ERRORS as error:
        why = str(error) or type(error).__name__
        raise DataError(f"{file} is no readable image ({why}): replace or remove it.") from None
