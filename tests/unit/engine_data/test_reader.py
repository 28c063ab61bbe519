"""The one reader of pictures: every orientation, and who opens pictures at all. Oracles are flips of arrays."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from engine.config.schema import FolderData, ProxyConfig
from engine.data import fingerprint as fingerprints
from engine.data import source
from engine.data.check import summarise
from engine.data.digests import digest_files
from engine.data.fingerprint import fingerprint
from engine.data.images import load_images
from engine.data.pairs import read_size
from engine.data.pictures import read_header, read_picture, square
from engine.data.registry import build_data
from engine.errors import DataError
from engine.pictures_cli import read_picture as read_shown

ENGINE = Path(__file__).resolve().parents[3] / "engine"
Pixels = NDArray[np.uint8]
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""What a viewer shows of stored pixels, from the table of the EXIF standard: 6 = the first row is the right side."""
SIDEWAYS = (5, 6, 7, 8)
STORED = {
    "png": ("PNG", {}),
    "late.png": ("PNG", {}),
    "tif": ("TIFF", {}),
    "packed.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "webp": ("WEBP", {"lossless": True, "exact": True}),
    "jpg": ("JPEG", {"quality": 95}),
}


def tagged(image: Image.Image, kind: str, orientation: int) -> bytes:
    """A file of these pixels with the tag. ``late``: the tag stands behind the pixels, as PNG allows."""
    name, options = STORED[kind]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, name, exif=exif, **options)
    return late(file.getvalue()) if kind == "late.png" else file.getvalue()


def late(png: bytes) -> bytes:
    """The same PNG with its eXIf chunk as the last one before IEND."""
    chunks, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        chunks.append(png[at : at + 12 + length])
        at += 12 + length
    moved = [chunk for chunk in chunks if chunk[4:8] == b"eXIf"]
    assert len(moved) == 1
    rest = [chunk for chunk in chunks if chunk[4:8] != b"eXIf"]
    return png[:8] + b"".join([*rest[:-1], *moved, rest[-1]])


def stored_pixels(content: bytes) -> Pixels:
    """What a file holds, without any tag's effect: an independent copy of its pixels for JPEG."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("kind", STORED)
def test_picture_and_header_are_as_a_viewer_shows_them(tmp_path: Path, kind: str, orientation: int) -> None:
    pixels = noise(6, 9)
    plain = stored_pixels(tagged(Image.fromarray(pixels), kind, 1))
    if kind != "jpg":
        assert np.array_equal(plain, pixels)
    file = tmp_path / f"x.{kind}"
    file.write_bytes(tagged(Image.fromarray(pixels), kind, orientation))
    expected = SHOWN[orientation](plain)
    found = read_picture(file, "mend it")
    assert np.array_equal(np.asarray(found.rgb("rgb")), expected) and found.orientation == orientation
    header = read_header(file, "mend it")
    assert (header.height, header.width, header.orientation) == (*expected.shape[:2], orientation)
    assert read_size(file) == expected.shape[:2]
    assert np.array_equal(np.asarray(read_shown(file)), expected)


@given(
    st.sampled_from(sorted(SHOWN)), st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]), st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_every_mode_is_turned(tmp_path_factory: pytest.TempPathFactory, orientation: int, mode: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 12, 2).tolist()
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (height, width), np.uint16))
    else:
        image = Image.fromarray(noise(height, width, seed)).convert(mode)
    file = tmp_path_factory.mktemp("modes") / "x.png"
    file.write_bytes(tagged(image, "png", orientation))
    found = read_picture(file, "mend it").image
    assert found.mode == image.mode and np.array_equal(np.asarray(found), SHOWN[orientation](np.asarray(image)))


@pytest.mark.parametrize("orientation", SHOWN)
def test_data_and_masks_are_turned_together(tmp_path: Path, orientation: int) -> None:
    """One image with a tag and a mask as viewers show it; the same with a mask that has the tag, too."""
    mask = np.random.default_rng(1).integers(0, 3, (6, 9), np.uint8)
    image = np.stack([mask * 40, mask, mask], axis=2)
    for part in ("images", "labels"):
        (tmp_path / part / "val").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    for name in "mn":
        content = tagged(Image.fromarray(image), "png", orientation)
        (tmp_path / f"images/val/{name}.png").write_bytes(content)
    shown = np.ascontiguousarray(SHOWN[orientation](mask))
    Image.fromarray(shown).save(tmp_path / "labels/val/m.png")
    (tmp_path / "labels/val/n.png").write_bytes(tagged(Image.fromarray(mask), "png", orientation))
    data = build_data(FolderData(root=str(tmp_path)), "val")
    assert data.sizes.tolist() == [list(shown.shape)] * 2
    for labels, picture in zip(data.labels.numpy(), data.images.numpy(), strict=True):
        assert np.array_equal(labels, shown) and np.array_equal(picture[0], shown * 40)


@pytest.mark.parametrize("orientation", SHOWN)
def test_proxy_images_are_turned_also_where_they_are_decoded_smaller(tmp_path: Path, orientation: int) -> None:
    quarters = np.kron(np.array([[10, 80], [150, 220]], np.uint8), np.ones((80, 80), np.uint8))
    file = tmp_path / "a.jpg"
    file.write_bytes(tagged(Image.fromarray(np.stack([quarters] * 3, axis=2)), "jpg", orientation))
    found = square(file, 16)
    assert found.shape == (16, 16, 3)
    middles = found[4::8, 4::8, 0].astype(int)
    assert np.abs(middles - SHOWN[orientation](np.array([[10, 80], [150, 220]]))).max() <= 4
    wide = np.concatenate([quarters, quarters + 15], axis=1)  # 320 x 160: the middle is cut out, after turning
    file.write_bytes(tagged(Image.fromarray(np.stack([wide] * 3, axis=2)), "jpg", orientation))
    middles = square(file, 16)[4::8, 4::8, 0].astype(int)
    assert np.abs(middles - SHOWN[orientation](np.array([[80, 25], [220, 165]]))).max() <= 4
    config = ProxyConfig(kind="jigsaw", images=str(tmp_path), image_side=16)
    assert np.array_equal(
        load_images(config, 0, None, None).data.images[0].numpy().transpose(1, 2, 0), square(file, 16)
    )


def test_masks_of_the_stored_size_are_refused_and_the_tag_is_named(tmp_path: Path) -> None:
    for part in ("images", "labels"):
        (tmp_path / part / "val").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "images/val/x.jpg").write_bytes(tagged(Image.fromarray(noise(6, 9)), "jpg", 6))
    Image.new("L", (9, 6)).save(tmp_path / "labels/val/x.png")
    with pytest.raises(DataError, match=r"x\.png is 9x6 but .*x\.jpg is 6x9 \(turned as its EXIF orientation 6 says"):
        build_data(FolderData(root=str(tmp_path)), "val")


def test_check_data_names_what_is_turned(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (tmp_path / part / split).mkdir(parents=True)
        for orientation in (1, 3, 6):
            pixels = noise(6, 9, orientation + len(split))
            content = tagged(Image.fromarray(pixels), "jpg", orientation if split == "train" else 1)
            (tmp_path / f"images/{split}/{split}{orientation}.jpg").write_bytes(content)
            size = (6, 9) if orientation == 6 and split == "train" else (9, 6)
            Image.new("L", size).save(tmp_path / f"labels/{split}/{split}{orientation}.png")
    (tmp_path / "classes.txt").write_text("a\n")
    report = summarise(FolderData(root=str(tmp_path)))
    assert all("of one class" in text for text in report.problems)
    assert report.splits["train"].sizes == {"9x6": 2, "6x9": 1}
    (warning,) = [text for text in report.warnings if "EXIF" in text]
    assert warning.startswith("2 images of split train are turned") and warning.endswith(": train3, train6.")


def test_size_of_a_turned_picture_needs_no_pixels(tmp_path: Path) -> None:
    for kind in ("jpg", "png", "webp"):
        content = tagged(Image.fromarray(noise(60, 90)), kind, 8)
        file = tmp_path / f"cut.{kind}"
        file.write_bytes(content[: len(content) * 2 // 3] if kind != "webp" else content)
        assert read_size(file) == (90, 60)


@pytest.mark.parametrize(
    "block", [b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"nothing", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_tags_turn_nothing_and_refuse_nothing(tmp_path: Path, block: bytes) -> None:
    for name, options in (("jpg", {}), ("png", {}), ("webp", {"lossless": True})):
        file = tmp_path / f"x.{name}"
        Image.fromarray(noise(6, 9)).save(file, exif=block, **options)
        assert read_size(file) == (6, 9) and read_picture(file, "").image.size == (9, 6)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_tags_that_mean_nothing_turn_nothing(tmp_path: Path, value: int) -> None:
    file = tmp_path / "x.png"
    file.write_bytes(tagged(Image.fromarray(noise(6, 9)), "png", value))
    assert read_size(file) == (6, 9) and np.array_equal(np.asarray(read_picture(file, "").image), noise(6, 9))


def test_pipe_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    for read in (lambda file: read_picture(file, "mend it"), read_size, lambda file: square(file, 8)):
        with pytest.raises(DataError, match=r"x\.png is no file"):
            read(tmp_path / "x.png")


def test_fingerprint_of_turned_pictures_is_another_than_that_of_their_files(tmp_path: Path) -> None:
    """Earlier engines read the same files as they are stored: their runs saw other data."""
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (tmp_path / part / split).mkdir(parents=True)
        (tmp_path / f"images/{split}/x.png").write_bytes(tagged(Image.new("RGB", (4, 4)), "png", 1))
        Image.new("L", (4, 4)).save(tmp_path / f"labels/{split}/x.png")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    config = FolderData(root=str(tmp_path))

    def of_files_alone() -> str:
        files = {}
        for split in ("train", "val"):
            names = [f"images/{split}/x.png", f"labels/{split}/x.png", "classes.txt"]
            files[split] = digest_files(tmp_path, [tmp_path / name for name in names])
        content = {"data": config.model_dump(mode="json", exclude={"root"}), "files": files}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    assert fingerprint(config) == of_files_alone()
    for part in ("images", "labels"):
        (tmp_path / f"{part}/val/x.png").write_bytes(tagged(Image.new("L", (4, 4)), "png", 3))
        assert fingerprint(config) != of_files_alone()


def test_orientation_is_read_again_when_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (tmp_path / part / split).mkdir(parents=True)
            (tmp_path / f"{part}/{split}/x.png").write_bytes(tagged(Image.new("L", (4, 4)), "png", 1))
    (tmp_path / "classes.txt").write_text("a\nb\n")
    config, read = FolderData(root=str(tmp_path)), []
    monkeypatch.setattr(fingerprints, "read_header", lambda *words: read.append(words[0].name) or read_header(*words))
    first = fingerprint(config)
    assert len(read) == 4 and fingerprint(config) == first and len(read) == 4
    (tmp_path / "images/val/x.png").write_bytes(tagged(Image.new("L", (4, 4)), "png", 3))
    second = fingerprint(config)
    assert len(read) == 5 and second != first
    (tmp_path / "labels/val/x.png").write_bytes(b"no picture")
    assert fingerprint(config) not in (first, second)


def test_cached_pixels_are_of_the_code_that_reads_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    files = dict(source.sources())
    monkeypatch.setattr(source, "sources", lambda: files)
    seen = {source.decoder_digest()}
    for name in ("pictures.py", "pairs.py", "source.py", "shapes.py", "masks.py"):
        files[f"data/{name}"] += b"#"
        seen.add(source.decoder_digest())
    assert len(seen) == 6


def test_nothing_but_the_reader_opens_pictures() -> None:
    """By the tree of every module: Pillow's ``open`` under whatever name, its parser, its plugins."""
    found = {file.relative_to(ENGINE).as_posix() for file in ENGINE.rglob("*.py") if opens_pictures(file.read_text())}
    assert found == {"data/pictures.py"}


def opens_pictures(code: str) -> bool:
    tree = ast.parse(code)
    names = {"Image"}  # what stands for PIL.Image
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("PIL", "cv2", "torchvision"):
            names |= {alias.asname or alias.name for alias in node.names if alias.name == "Image"}
            if any(
                alias.name in ("open", "ImageFile", "imread", "io") or "Plugin" in alias.name for alias in node.names
            ):
                return True
        if isinstance(node, ast.Import):
            names |= {alias.asname for alias in node.names if alias.name == "PIL.Image" and alias.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("open", "imread", "imdecode", "imdecodemulti"):
            owner = ast.unparse(node.value)
            if owner in names or owner.endswith("PIL.Image") or node.attr != "open":
                return True
    return False


def test_check_of_who_opens_pictures_sees_every_way() -> None:
    for way in (
        "from PIL import Image\nImage.open(x)",
        "from PIL import Image as I\nI.open(x)",
        "import PIL.Image\nPIL.Image.open(x)",
        "import PIL.Image as I\nread = I.open",
        "from PIL.Image import open",
        "import cv2\ncv2.imread(x)",
        "def f():\n    from PIL import ImageFile",
    ):
        assert opens_pictures(way)
    assert not opens_pictures("from PIL import Image\nImage.new('L', (1, 1))\nfile.open()\nopen(x)")


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize("behind", [True, False])
def test_orientation_in_xmp_is_one_for_header_and_pixels(tmp_path: Path, behind: bool) -> None:
    """Pillow takes it from there; what matters is that both agree, wherever the block stands."""
    file = io.BytesIO()
    Image.fromarray(noise(6, 9)).save(file, "PNG")
    png = file.getvalue()
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="6"/>')
    cut = len(png) - 12 if behind else 33
    path = tmp_path / "x.png"
    path.write_bytes(png[:cut] + text + png[cut:])
    assert read_size(path) == (9, 6)
    assert np.array_equal(np.asarray(read_picture(path, "").image), SHOWN[6](noise(6, 9)))
