"""Masks whose encoding changes values are refused, whatever they are called; the others are read to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from engine.__main__ import main
from engine.config.schema import FolderData
from engine.data.check import summarise
from engine.data.masks import read_mask
from engine.data.registry import build_data
from engine.errors import DataError

VALUES = np.kron(np.random.default_rng(0).integers(0, 3, (4, 5), np.uint8), np.ones((7, 7), np.uint8))
GREY = Image.fromarray(VALUES)
LOSSY: dict[str, tuple[Image.Image, str, dict[str, Any], str]] = {
    "JPEG": (GREY, "JPEG", {"quality": 75}, "JPEG"),
    "JPEG at its best": (GREY, "JPEG", {"quality": 100}, "JPEG"),
    "JPEG of colours": (GREY.convert("RGB"), "JPEG", {}, "JPEG"),
    "MPO": (GREY, "MPO", {"save_all": True, "append_images": [GREY]}, "JPEG"),
    "WebP": (GREY.convert("RGB"), "WEBP", {"quality": 90}, "lossy WebP"),
    "WebP with alpha": (GREY.convert("RGBA"), "WEBP", {"quality": 90}, "lossy WebP"),
    "WebP, animated": (
        GREY.convert("RGB"),
        "WEBP",
        {"save_all": True, "append_images": [GREY.transpose(Image.Transpose.ROTATE_180)]},
        "lossy WebP",
    ),
    "TIFF with JPEG": (GREY, "TIFF", {"compression": "jpeg"}, "JPEG"),
    "JPEG 2000": (GREY, "JPEG2000", {"irreversible": True}, "JPEG 2000"),
    "AVIF": (GREY, "AVIF", {}, "AVIF"),
}
EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": ("PNG", {}),
    "BMP": ("BMP", {}),
    "TIFF": ("TIFF", {}),
    "TIFF with LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF with deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (tmp_path / part / split).mkdir(parents=True)
        pixels = np.stack([VALUES * 40, VALUES + len(split), VALUES], axis=2)
        Image.fromarray(pixels).save(tmp_path / f"images/{split}/{split}.png")
        GREY.save(tmp_path / f"labels/{split}/{split}.png")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    return tmp_path


@pytest.mark.parametrize("case", LOSSY)
def test_mask_that_is_encoded_with_loss_is_refused_under_any_name(root: Path, case: str) -> None:
    image, format, options, name = LOSSY[case]
    feature = {"JPEG 2000": "jpg_2000", "AVIF": "avif", "TIFF with JPEG": "libtiff"}.get(case, "jpg")
    if not features.check(feature):
        pytest.skip(f"this Pillow has no {feature}")
    file = root / "labels/train/train.png"
    image.save(file, format, **options)
    with pytest.raises(DataError) as caught:
        build_data(FolderData(root=str(root)), "train")
    text = str(caught.value)
    assert text.startswith(f"{file} is encoded as {name}, which changes values") and "\n" not in text
    assert "Convert the original to PNG" in text
    assert summarise(FolderData(root=str(root))).problems == [text]


@pytest.mark.parametrize("case", EXACT)
def test_mask_that_is_encoded_without_loss_is_read_to_the_bit(root: Path, case: str) -> None:
    format, options = EXACT[case]
    file = root / "labels/train/train.png"
    GREY.save(file, format, **options)
    assert np.array_equal(read_mask(file, "").values, VALUES)
    assert np.array_equal(build_data(FolderData(root=str(root)), "train").labels[0].numpy(), VALUES)


@pytest.mark.parametrize("animated", [False, True])
def test_webp_without_loss_is_told_from_one_with_loss(root: Path, animated: bool) -> None:
    """WebP has no grey: the mask is refused for its mode, with the conversion, and not for its encoding."""
    file = root / "labels/train/train.png"
    more = (
        {"save_all": True, "append_images": [GREY.convert("RGB").transpose(Image.Transpose.ROTATE_180)]}
        if animated
        else {}
    )
    GREY.convert("RGB").save(file, "WEBP", lossless=True, exact=True, **more)
    with pytest.raises(
        DataError, match=r'planes are alike, so keep one: with Pillow Image\.open\(FILE\)\.getchannel\("R"\)'
    ):
        read_mask(file, "")


def test_training_refuses_what_check_data_refuses(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    GREY.save(root / "labels/val/val.png", "JPEG")
    recipe = root / "r.yaml"
    recipe.write_text(
        "data: {kind: folder}\nmodel: {backbone: tiny_vgg, head_channels: 8, extra_channels: 0, fc_channels: 0}\n"
        "segment: {steps: 1, crop: 16, pixels: 8, batch_size: 2}\nruntime: {device: cpu, threads: 1}\n"
    )
    given = [str(recipe), "--set", f"data.root={root}"]
    assert main(["check-data", *given]) == 1
    assert "val.png is encoded as JPEG" in capsys.readouterr().out
    assert main(["train", *given, "--run-dir", str(root / "run")]) == 1
    assert "val.png is encoded as JPEG" in capsys.readouterr().err
