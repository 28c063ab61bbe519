"""Pictures and masks that are broken or hostile: read, or refused in words, in bounded memory."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.pairs import LabelRule, Pair, load_pair
from engine.data.pictures import MEGA, MEGAPIXELS, square
from engine.errors import DataError
from mmtui.tui.pages.label_maps import _opened
from tests.fuzz.mutations import changed, each, seeds
from tests.fuzz.watch import Watch

FORMATS = {
    "jpg": ("JPEG", "RGB", {}),
    "progressive.jpg": ("JPEG", "RGB", {"progressive": True}),
    "png": ("PNG", "RGB", {}),
    "palette.png": ("PNG", "P", {}),
    "bmp": ("BMP", "RGB", {}),
    "webp": ("WEBP", "RGB", {}),
    "tiff": ("TIFF", "RGB", {}),
    "packed.tif": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
}
RULE = LabelRule(("any",), (0,) * 256, "any value is one", lambda _value: "")
MOST_PIXELS = MEGAPIXELS * MEGA
# Pillow says what it thinks of large or odd pictures.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")


def picture(kind: str) -> bytes:
    """A small picture with something in it."""
    name, mode, options = FORMATS[kind]
    pixels = np.random.default_rng(0).integers(0, 256, (23, 31, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, name, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_broken_pictures_are_read_or_refused(tmp_path: Path, watch: Watch, kind: str) -> None:
    content, file = picture(kind), tmp_path / f"x.{kind}"
    refused = 0
    for seed, chosen in each(seeds(150), f"pictures, {kind}"):
        file.write_bytes(changed(content, chosen))
        refused += not _read(file, watch, seed)
    assert refused  # else they were hardly broken


def _read(file: Path, watch: Watch, seed: int) -> bool:
    """Whether a picture was read, for a proxy task and as picture and mask of a pair; one that is refused is named."""
    read = []
    for reader in (lambda: square(file, 16), lambda: load_pair(Pair("x", file, file), RULE, 1.0)):
        try:
            with watch.input():
                reader()
            read.append(True)
        except DataError as error:
            assert str(file) in str(error), seed
        except BaseException as error:
            pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
    with watch.input():
        _opened(str(file))  # on the screen: a picture, or why there is none
    return bool(read)


def png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG that claims to be so large."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_size_that_a_picture_only_claims_is_refused(tmp_path: Path, watch: Watch) -> None:
    sides = (1, 2, 1000, 13_000, 16_383, 65_535, 2**31 - 1)
    for seed, chosen in each(seeds(40), "pictures, claimed sizes"):
        width, height = chosen.choice(sides), chosen.choice(sides)
        file = tmp_path / "x.png"
        file.write_bytes(png(width, height, bytes(100)))
        read = _read(file, watch, seed)
        assert not read or width * height <= MOST_PIXELS, (width, height)
