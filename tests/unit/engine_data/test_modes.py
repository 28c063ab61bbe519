"""Modes and depths of images and masks, in PNG files written here bit by bit; other formats are Pillow's."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from engine.config.schema import FolderData, ProxyConfig
from engine.data.check import summarise
from engine.data.images import load_images
from engine.data.masks import read_mask
from engine.data.pairs import plain_meaning
from engine.data.pictures import has_frames, pixels_of, read_picture, square
from engine.data.registry import build_data
from engine.errors import DataError

Samples = NDArray[np.int64]
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
KINDS = [
    *((GREY, bits) for bits in (1, 2, 4, 8, 16)),
    *((PALETTE, bits) for bits in (1, 2, 4, 8)),
    *((kind, bits) for kind in (RGB, GREY_ALPHA, RGBA) for bits in (8, 16)),
]
COLOURS = np.random.default_rng(7).integers(0, 256, (256, 3))


def png(samples: Samples, kind: int, bits: int, more: bytes = b"") -> bytes:
    """A PNG of these samples (h, w, channels), after the specification: most significant bits and bytes first."""
    height, width, _ = samples.shape
    rows = b""
    for row in samples:
        line = "".join(f"{value:0{bits}b}" for value in row.ravel().tolist())
        line += "0" * (-len(line) % 8)
        rows += b"\0" + int(line, 2).to_bytes(len(line) // 8, "big")
    table = chunk(b"PLTE", COLOURS[: 2**bits].astype(np.uint8).tobytes()) if kind == PALETTE else b""
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + table + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def draw(kind: int, bits: int, seed: int) -> Samples:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 10, 2)
    return rng.integers(0, 2**bits, (height, width, CHANNELS[kind]))


def shown(samples: Samples, kind: int, bits: int) -> Samples:
    """R, G and B, 0 to 255, by the table of docs/data.md."""
    if kind == PALETTE:
        return COLOURS[samples[..., 0]]
    eight = samples * 255 // (2**bits - 1) if bits <= 8 else samples // 256
    colours = eight[..., : 1 if kind in (GREY, GREY_ALPHA) else 3]
    return np.broadcast_to(colours, (*colours.shape[:2], 3))


@pytest.mark.filterwarnings("error")
@given(st.sampled_from(KINDS), st.integers(0, 999), st.booleans())
@settings(max_examples=120, deadline=None)
def test_every_kind_of_png_is_read_as_documented(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[int, int], seed: int, transparent: bool
) -> None:
    samples = draw(*kind, seed)
    more = chunk(b"tRNS", b"\0\x80") if transparent and kind[0] == PALETTE else b""
    file = tmp_path_factory.mktemp("kinds") / "x.png"
    file.write_bytes(png(samples, *kind, more))
    expected = shown(samples, *kind)
    assert np.array_equal(pixels_of(read_picture(file, "").rgb("")), expected)
    side = min(samples.shape[:2])
    top, left = ((length - side) // 2 for length in samples.shape[:2])
    assert np.array_equal(square(file, side), expected[top : top + side, left : left + side])


@given(st.sampled_from(KINDS), st.integers(0, 999))
@settings(max_examples=120, deadline=None)
def test_masks_are_read_by_value_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[int, int], seed: int
) -> None:
    samples = draw(*kind, seed)
    if kind == (GREY, 16) and seed % 2:
        samples %= 256
    file = tmp_path_factory.mktemp("masks") / "x.png"
    file.write_bytes(png(samples, *kind))
    if kind[0] in (GREY, PALETTE) and samples.max() < 256:
        mask = read_mask(file, "")
        found = mask.values
        assert found.dtype == np.uint8 and np.array_equal(found, samples[..., 0])
        assert mask.step == (255 // (2 ** kind[1] - 1) if kind[0] == GREY and kind[1] < 8 else 1)
    else:
        with pytest.raises(DataError, match=r"write an 8-bit PNG of class indices \(mode L or P\)"):
            read_mask(file, "")


CLASSES = {
    "few": (("a", "b"), (255,)),
    "no void": (("a", "b"), ()),
    "many": (tuple("abcdefgh"), (255,)),
    "all": (tuple(map(str, range(40))), (255,)),
}


@given(
    st.sampled_from([1, 2, 4]), st.sampled_from(sorted(CLASSES)), st.sets(st.integers(0, 15), min_size=1, max_size=3)
)
@settings(max_examples=150, deadline=None)
def test_grey_of_few_bits_is_read_where_one_reading_is_left(
    tmp_path_factory: pytest.TempPathFactory, bits: int, case: str, chosen: set[int]
) -> None:
    """Bits may be indices, or greys that a program has packed without loss: what both would allow is refused."""
    (names, void), values = CLASSES[case], sorted({value % 2**bits for value in chosen})
    file = tmp_path_factory.mktemp("few") / "x.png"
    file.write_bytes(png(np.array([values])[..., None], GREY, bits))
    step = 255 // (2**bits - 1)

    def is_allowed(readings: list[int]) -> bool:
        return all(value < len(names) or value in void for value in readings)

    greys = [value * step for value in values]
    mask, meaning = read_mask(file, ""), plain_meaning(len(names), void)
    if values == [0] or not is_allowed(greys) or (bits == 1 and len(names) == 2):
        assert mask.meant(meaning).tolist() == [values]
    elif not is_allowed(values):
        assert mask.meant(meaning).tolist() == [greys]
    else:
        with pytest.raises(DataError, match=rf"grey of {bits} bits?, where {max(values)} may mean {max(values)} or"):
            mask.meant(meaning)


ALIKE = np.array([[[3, 3, 3], [1, 1, 1]]], np.uint8)
OPAQUE = np.array([[[3, 3, 3, 255], [1, 1, 1, 255]]], np.uint8)
REMEDIES = {
    "planes alike": (ALIKE, 'getchannel("R")'),
    "planes alike, alpha": (OPAQUE, 'getchannel("R")'),
    "LA": (OPAQUE[..., 2:], 'getchannel("L")'),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_conversion_that_is_named_makes_the_mask(tmp_path: Path, case: str) -> None:
    pixels, word = REMEDIES[case]
    file = tmp_path / "x.png"
    Image.fromarray(pixels).save(file)
    with pytest.raises(DataError) as caught:
        read_mask(file, "")
    command = str(caught.value).partition("with Pillow ")[2].removesuffix(".")
    assert word in command and "\n" not in str(caught.value)
    exec(command, {"Image": Image, "FILE": file})
    assert read_mask(file, "").values.tolist() == [[3, 1]]


def test_colours_and_deep_planes_are_told_what_to_become(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    Image.new("RGB", (2, 2), (128, 0, 0)).save(file)
    with pytest.raises(
        DataError, match=r"mode RGB.*not one of colours: each colour is to become the index of its class"
    ):
        read_mask(file, "")
    file.write_bytes(png(np.full((2, 2, 3), 3), RGB, 16))  # Pillow gives 0: its upper byte
    with pytest.raises(DataError, match="write the values of one of them as 8 bits"):
        read_mask(file, "")


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(
    ("bits", "compression"), [(1, None), (1, "tiff_lzw"), (1, "group4"), (8, None), (8, "tiff_lzw")]
)
def test_tiff_masks_that_store_white_as_0_are_refused(
    tmp_path: Path, bits: int, photometric: int, compression: str | None
) -> None:
    values = np.random.default_rng(0).integers(0, 2 if bits == 1 else 256, (8, 8), np.uint8)
    image = Image.fromarray(values * 255).convert("1") if bits == 1 else Image.fromarray(values)
    file = tmp_path / "x.png"
    image.save(file, "TIFF", compression=compression, tiffinfo={262: photometric})
    with Image.open(file) as written:
        assert written.tag_v2[262] == photometric
    if photometric == 0:
        with pytest.raises(DataError, match="stores white as 0"):
            read_mask(file, "")
    else:
        assert np.array_equal(read_mask(file, "").values, values)


def tiff(values: Samples, bits: int, photometric: int) -> bytes:
    """A little-endian TIFF of grey (h, w), not compressed, by the specification: 12 bits are packed."""
    height, width = values.shape
    if bits == 12:
        text = "".join("".join(f"{value:012b}" for value in row) for row in values.tolist())
        pixels = int(text, 2).to_bytes(len(text) // 8, "big")
    else:
        pixels = values.astype(f"<u{bits // 8}").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    table = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + table


@pytest.mark.parametrize(("bits", "photometric"), [(12, 1), (16, 1), (16, 0), (8, 0), (8, 1)])
def test_tiff_grey_of_any_depth_becomes_the_grey_it_means(tmp_path: Path, bits: int, photometric: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, (4, 6))
    file = tmp_path / "x.tif"
    file.write_bytes(tiff(values, bits, photometric))
    expected = values // 2 ** (bits - 8)
    expected = expected if photometric else 255 - expected
    assert np.array_equal(pixels_of(read_picture(file, "").rgb(""))[..., 0], expected)
    assert np.array_equal(square(file, 4)[..., 0], expected[:, 1:5])
    small = tmp_path / "mask.png"
    small.write_bytes(tiff(values % 200, bits, photometric))
    if photometric:
        assert np.array_equal(read_mask(small, "").values, values % 200)
    else:
        with pytest.raises(DataError, match="stores white as 0"):
            read_mask(small, "")


@pytest.mark.parametrize(("mode", "dtype"), [("I;16", "<u2"), ("I;16B", ">u2"), ("I", "<i4")])
def test_deep_tiff_masks_are_read_by_value(tmp_path: Path, mode: str, dtype: str) -> None:
    values = np.array([[0, 7], [255, 20]])
    file = tmp_path / "x.png"
    Image.frombytes(mode, (2, 2), values.astype(dtype).tobytes()).save(file, "TIFF")
    assert np.array_equal(read_mask(file, "").values, values)


def test_values_of_16_bits_that_are_8_bits_stretched_are_told_so(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(png(np.array([[[0], [257], [65535]]]), GREY, 16))
    with pytest.raises(DataError, match="values from 0 to 65535, of more than 8 bits: they are 8-bit values times 257"):
        read_mask(file, "")


IMAGES: dict[str, Callable[[Path], object]] = {
    "CMYK": lambda file: Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(file, "JPEG"),
    "I;16 tiff": lambda file: Image.new("I;16", (4, 4), 0xFE12).save(file, "TIFF"),
    "L": lambda file: Image.new("L", (4, 4), 254).save(file, "PNG"),
    "F": lambda file: Image.new("F", (4, 4), 254).save(file, "TIFF"),
    "I": lambda file: Image.new("I", (4, 4), 254).save(file, "TIFF"),
    "LAB": lambda file: Image.new("LAB", (4, 4)).save(file, "TIFF"),
}


@pytest.mark.parametrize("mode", IMAGES)
def test_images_of_other_modes_are_read_or_refused_alike(tmp_path: Path, mode: str) -> None:
    """In a data set and for a proxy task."""
    for part in ("images", "labels"):
        (tmp_path / part / "val").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    file = tmp_path / "images/val/x.png"
    IMAGES[mode](file)
    Image.new("L", (4, 4)).save(tmp_path / "labels/val/x.png")
    config = FolderData(root=str(tmp_path))
    if mode in ("F", "I", "LAB"):
        words = rf"x\.png is a picture of mode {mode}: write an 8-bit colour or grey picture"
        with pytest.raises(DataError, match=words):
            build_data(config, "val")
        with pytest.raises(DataError, match=words):
            square(file, 4)
        return
    expected = [250, 5, 5] if mode == "CMYK" else [254] * 3
    for found in (build_data(config, "val").images[0].numpy(), square(file, 4).transpose(2, 0, 1)):
        assert np.abs(found.astype(int) - np.array(expected)[:, None, None]).max() <= (12 if mode == "CMYK" else 0)


@pytest.mark.parametrize(("suffix", "options"), [("tif", {}), ("gif", {}), ("webp", {"lossless": True}), ("png", {})])
def test_first_frame_is_read_and_check_data_says_so(tmp_path: Path, suffix: str, options: dict[str, object]) -> None:
    first, second = Image.new("RGB", (6, 5), (200, 10, 10)), Image.new("RGB", (6, 5), (10, 200, 10))
    for part in ("images", "labels"):
        for split in ("train", "val"):
            (tmp_path / part / split).mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("a\n")
    name = f"x.{suffix}" if suffix != "gif" else "x.png"  # Pillow goes by what is in a file
    for split in ("train", "val"):
        more = {"save_all": True, "append_images": [second]} if split == "train" else {}
        file = tmp_path / f"images/{split}/{name}"
        first.save(file, {"tif": "TIFF"}.get(suffix, suffix.upper()), **more, **options)
        assert has_frames(file) == (split == "train")
        Image.new("L", (6, 5)).save(tmp_path / f"labels/{split}/x.png")
    config = FolderData(root=str(tmp_path))
    assert build_data(config, "train").images[0, :, 2, 2].tolist() == [200, 10, 10]
    proxy = ProxyConfig(kind="jigsaw", images=str(tmp_path / "images/train"), image_side=16)
    assert load_images(proxy, 0, None, None).data.images[0, :, 8, 8].tolist() == [200, 10, 10]
    report = summarise(config, None, proxy)
    frames = [text for text in report.warnings if "frame" in text]
    assert len(frames) == 2 and frames[0].startswith("1 image of split train is the first of several frames")
    assert "of 1 image of the proxy task only the first frame of several is read" in frames[1]
    assert all("of one class" in text for text in report.problems)


def test_damaged_second_frame_is_no_problem_and_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    frames = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 60), np.uint8)) for seed in range(2)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    content = file.read_bytes()
    file.write_bytes(content[: len(content) - 500])
    assert has_frames(file) and np.array_equal(pixels_of(read_picture(file, "").rgb(""))[..., 0], np.asarray(frames[0]))


def test_check_data_names_images_that_are_transparent(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (tmp_path / part / split).mkdir(parents=True)
        for name, alpha in (("opaque", 255), ("clear", 254 if split == "train" else 255)):
            Image.new("RGBA", (6, 5), (len(split), alpha % 7, len(name), alpha)).save(
                tmp_path / f"images/{split}/{name}{split}.png"
            )
            Image.new("L", (6, 5)).save(tmp_path / f"labels/{split}/{name}{split}.png")
    (tmp_path / "classes.txt").write_text("a\n")
    (warning,) = [text for text in summarise(FolderData(root=str(tmp_path))).warnings if "transparent" in text]
    assert warning.startswith("1 image of split train is transparent in places") and warning.endswith(": cleartrain.")


def test_camera_files_of_several_parts_are_one_picture(tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    Image.new("RGB", (16, 16)).save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    with Image.open(file) as opened:
        assert opened.format == "MPO"
    assert not has_frames(file) and square(file, 8).shape == (8, 8, 3)
