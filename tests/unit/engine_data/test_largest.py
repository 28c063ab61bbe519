"""How large a picture may be: a setting of the recipe, refused by name, in every process that reads pictures."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.__main__ import main
from engine.config.determining import determining, stage_names, work_name
from engine.config.schema import FolderData, ProxyConfig, Recipe, RuntimeConfig
from engine.data import images, pictures, threads
from engine.data.fingerprint import fingerprint
from engine.data.images import load_images
from engine.data.pairs import read_size
from engine.errors import DataError


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """As a process begins; what a test sets is set back."""
    pictures.allow(RuntimeConfig().max_megapixels)
    yield
    pictures.allow(RuntimeConfig().max_megapixels)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images of 6 x 5, 0.00003 megapixels; one of training is of 6 x 6."""
    for split in ("train", "val"):
        for number in range(2):
            size = (6, 6) if split == "train" and number else (6, 5)
            for part, mode in (("images", "RGB"), ("labels", "L")):
                (tmp_path / "data" / part / split).mkdir(parents=True, exist_ok=True)
                Image.new(mode, size, number).save(tmp_path / f"data/{part}/{split}/{split}{number}.png")
    (tmp_path / "data/classes.txt").write_text("a\nb\n")
    (tmp_path / "r.yaml").write_text(
        "data: {kind: folder}\nmodel: {backbone: tiny_vgg, head_channels: 8, extra_channels: 0, fc_channels: 0}\n"
        "segment: {steps: 1, crop: 16, pixels: 8, batch_size: 2}\nruntime: {device: cpu, threads: 1}\n"
    )
    return tmp_path


def claimed(file: Path, width: int, height: int) -> Path:
    """A PNG that says it is so large, and is not."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b""))
    return file


@pytest.mark.parametrize("sides", [(20_000, 10_000), (40_000, 20_000)])
def test_limit_is_named_and_can_be_raised(tmp_path: Path, sides: tuple[int, int]) -> None:
    """Also beyond what Pillow refuses by itself, and without a warning of its own."""
    file = claimed(tmp_path / "x.png", *sides)
    millions = sides[0] * sides[1] // 10**6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        for read in (read_size, lambda path: pictures.square(path, 8), lambda path: pictures.read_picture(path, "x")):
            with pytest.raises(
                DataError, match=rf"x\.png has {millions} megapixels, more than runtime\.max_megapixels = 179"
            ):
                read(file)
        pictures.allow(millions)
        assert read_size(file) == sides[::-1]
        pictures.allow(millions - 0.001)
        with pytest.raises(DataError, match="raise that if there is memory for it, or"):
            read_size(file)


@pytest.mark.parametrize("command", ["check-data", "train"])
def test_limit_of_the_recipe_is_that_of_the_command(
    root: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:

    def run(limit: str) -> int:
        more = [] if command == "check-data" else ["--run-dir", str(root / limit)]
        given = [command, str(root / "r.yaml"), "--set", f"data.root={root / 'data'}", *more]
        return main([*given, "--set", f"runtime.max_megapixels={limit}"])

    assert run("0.000035") == 1
    told = "".join(capsys.readouterr())
    assert "train1.png has 3.6e-05 megapixels, more than runtime.max_megapixels = 3.5e-05" in told
    assert "train0.png" not in told and "val1.png" not in told
    assert run("0.000036") == 0


def test_limit_holds_in_processes_that_decode(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MANY", 1)
    for module in (threads, images):
        monkeypatch.setattr(module, "thread_count", lambda: 2)
    config = ProxyConfig(kind="jigsaw", images=str(root / "data/images"), image_side=16)
    assert len(load_images(config, 0, None, None).data) == 4
    pictures.allow(0.000035)
    with pytest.raises(
        DataError, match=r"train1\.png has 3\.6e-05 megapixels, more than runtime\.max_megapixels = 3\.5e-05"
    ):
        load_images(config, 0, None, None)


def test_hair_of_a_picture_is_cut_before_it_is_made_larger(tmp_path: Path) -> None:
    """1 x 30,000 pixels at a side of 256 would become 2 gigapixels, of which 256 x 256 are kept."""
    pixels = np.zeros((1, 30_000, 3), np.uint8)
    pixels[0, 14_990:15_010] = 200
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = pictures.square(tmp_path / "x.png", 256)
    assert found.shape == (256, 256, 3) and found.min() == 200


def test_limit_is_no_part_of_what_identifies_data_and_stages(root: Path) -> None:
    config = FolderData(root=str(root / "data"))
    base = {"data": config.model_dump(), "proxy": {}, "segment": {}}
    low, high = (Recipe.model_validate({**base, "runtime": {"max_megapixels": most}}) for most in (0.1, 500))
    assert stage_names(low) == stage_names(high) and work_name(low) == work_name(high)
    assert list(determining(low, "segment")) == list(determining(high, "segment"))
    first = fingerprint(config)
    pictures.allow(0.000035)
    assert fingerprint(config) == first


@pytest.mark.parametrize("value", ["0", "-1", "inf", "1e7"])
def test_limits_that_are_none_are_refused(root: Path, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(root / "r.yaml"), "--set", f"runtime.max_megapixels={value}"]) == 2
    assert "max_megapixels" in capsys.readouterr().err
