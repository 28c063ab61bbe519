"""Names of data files: what is passed over, what belongs together, and names of any bytes."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.__main__ import main
from engine.config.schema import CityscapesData, FolderData, ProxyConfig, VocData
from engine.data.check import summarise
from engine.data.fingerprint import fingerprint, images_fingerprint
from engine.data.images import load_images
from engine.data.names import is_hidden, same, same_file
from engine.data.registry import build_data
from engine.errors import DataError

NFC, NFD = unicodedata.normalize("NFC", "h\u00e4user"), unicodedata.normalize("NFD", "h\u00e4user")
LATIN = os.fsdecode(b"caf\xe9")
HIDDEN = ("._{}", ".{}", ".ipynb_checkpoints/{}", "__MACOSX/{}", "__MACOSX/._{}")
LISTS = "ImageSets/Segmentation"


def image(path: Path, seed: int = 0, size: tuple[int, int] = (6, 5)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix.lower() == ".png" else None)
    return path


def mask(path: Path, value: int, size: tuple[int, int] = (6, 5)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, "PNG")
    return path


def hide_in(folder: Path, name: str) -> None:
    """Files that no program should read, whatever they hold."""
    for place in HIDDEN:
        path = folder / place.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no picture")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One image each split, of two classes."""
    for number, split in enumerate(("train", "val")):
        image(tmp_path / f"data/images/{split}/{split}.png", number)
        mask(tmp_path / f"data/labels/{split}/{split}.png", number)
    (tmp_path / "data/classes.txt").write_text("a\nb\nc\n")
    return tmp_path / "data"


def city_of(root: Path, city: str, name: str, suffix: str = ".png") -> None:
    image(root / f"leftImg8bit/train/{city}/{name}_leftImg8bit{suffix}", len(name))
    mask(root / f"gtFine/train/{city}/{name}_gtFine_labelIds{suffix}", 7)


def voc_of(root: Path, *names: str) -> VocData:
    for part in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", LISTS):
        (root / part).mkdir(parents=True, exist_ok=True)
    (root / LISTS / "train_aug.txt").write_bytes(b"".join(os.fsencode(name) + b"\n" for name in names))
    return VocData(root=str(root))


def test_hidden_files_are_passed_over_in_folders_of_a_data_set(root: Path) -> None:
    config = FolderData(root=str(root))
    before = fingerprint(config)
    for part in ("images", "labels"):
        hide_in(root / part / "train", "x.png")
        hide_in(root / part / "train", "train.png")
    assert build_data(config, "train").names == ["train"] and fingerprint(config) == before
    report = summarise(config)
    assert all("of one class" in text for text in report.problems)
    assert not any("x" in text and "mask" in text for text in report.warnings)


def test_hidden_files_and_cities_are_passed_over_in_cityscapes(tmp_path: Path) -> None:
    city_of(tmp_path, "ulm", "ulm_0")
    hide_in(tmp_path / "leftImg8bit/train/ulm", "ulm_1_leftImg8bit.png")
    hide_in(tmp_path / "gtFine/train/ulm", "ulm_1_gtFine_labelIds.png")
    for city in (".ipynb_checkpoints", "__MACOSX", "._ulm"):
        hidden = tmp_path / f"leftImg8bit/train/{city}/ulm_2_leftImg8bit.png"
        hidden.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(b"no picture")
        mask(tmp_path / f"gtFine/train/{city}/ulm_3_gtFine_labelIds.png", 7)
    (tmp_path / "leftImg8bit/val").mkdir()
    (tmp_path / "gtFine/val").mkdir()
    config = CityscapesData(root=str(tmp_path))
    assert build_data(config, "train").names == ["ulm_0"]
    report = summarise(config)
    assert report.splits["train"].images == 1 and not any("without an image" in text for text in report.warnings)
    assert all("val" in text for text in report.problems)


def test_hidden_lines_of_a_voc_list_are_passed_over(tmp_path: Path) -> None:
    config = voc_of(tmp_path, "one", "._one", "/JPEGImages/.x.jpg /SegmentationClassAug/.x.png")
    image(tmp_path / "JPEGImages/one.jpg")
    mask(tmp_path / "SegmentationClassAug/one.png", 1)
    assert build_data(config, "train").names == ["one"]
    with pytest.raises(DataError, match=r"train_aug\.txt names hidden files alone"):
        build_data(voc_of(tmp_path, "._one"), "train")


@pytest.mark.parametrize("kind", ["jigsaw", "classification"])
def test_hidden_files_and_folders_are_no_images_and_no_classes_of_a_proxy_task(tmp_path: Path, kind: str) -> None:
    root = tmp_path / ".kept" / "pictures"  # where the folder itself lies does not count
    for number, name in enumerate(("ant", "bee")):
        image(root / name / "deep" / "0.png", number)
    clean = images_fingerprint(root)
    for folder in (root, root / "ant", root / "bee/deep"):
        hide_in(folder, "x.jpg")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        image(root / name / "wasp" / "0.png", 9)
    config = ProxyConfig(kind=kind, images=str(root), image_side=16)
    found = load_images(config, 0, None, None)
    assert found.data.names == ["ant/deep/0.png", "bee/deep/0.png"] and images_fingerprint(root) == clean
    assert found.classes == (("ant", "bee") if kind == "classification" else ())
    report = summarise(voc_of(tmp_path / "voc", "x"), None, config)
    assert report.proxy is not None and (report.proxy.files, report.proxy.images) == (2, 2)
    assert not any("x.jpg" in text and "pictures" in text for text in report.problems)


@pytest.mark.parametrize(("image_suffix", "mask_suffix"), [(".PNG", ".png"), (".JPG", ".PNG"), (".jPeG", ".Png")])
def test_suffixes_of_any_case_are_read(root: Path, tmp_path: Path, image_suffix: str, mask_suffix: str) -> None:
    image(root / f"images/train/more{image_suffix}", 5)
    mask(root / f"labels/train/more{mask_suffix}", 2)
    data = build_data(FolderData(root=str(root)), "train")
    assert data.names == ["more", "train"] and data.labels[0].unique().tolist() == [2]
    mask(root / f"labels/train/alone{mask_suffix}", 2)
    assert any(
        "without an image" in w and f"alone{mask_suffix}" in w for w in summarise(FolderData(root=str(root))).warnings
    )
    city_of(tmp_path / "city", "ulm", "ulm_0", ".PNG")
    assert build_data(CityscapesData(root=str(tmp_path / "city")), "train").names == ["ulm_0"]
    config = voc_of(tmp_path / "voc", "one", "/JPEGImages/two.jpg /SegmentationClassAug/two.png")
    for name in ("one", "two"):
        image(tmp_path / f"voc/JPEGImages/{name}.JPG")
        mask(tmp_path / f"voc/SegmentationClassAug/{name}{mask_suffix}", 3)
    data = build_data(config, "train")
    assert data.names == ["one", "two"] and data.labels.unique().tolist() == [3]


@pytest.mark.parametrize(("image_name", "mask_name"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), (NFD, NFD)])
def test_names_of_any_normal_form_belong_together(root: Path, tmp_path: Path, image_name: str, mask_name: str) -> None:
    image(root / f"images/train/{image_name}.png", 5)
    mask(root / f"labels/train/{mask_name}.png", 2)
    data = build_data(FolderData(root=str(root)), "train")
    assert data.names == [image_name, "train"] and data.labels[0].unique().tolist() == [2]
    assert not any("without an image" in text for text in summarise(FolderData(root=str(root))).warnings)
    image(root / f"images/val/{mask_name}.png", 6)
    mask(root / f"labels/val/{image_name}.png", 1)
    assert any("1 name in both splits" in text for text in summarise(FolderData(root=str(root))).warnings)
    city = tmp_path / "city"
    image(city / f"leftImg8bit/train/{image_name}/{image_name}_0_leftImg8bit.png")
    mask(city / f"gtFine/train/{mask_name}/{mask_name}_0_gtFine_labelIds.png", 7)
    assert build_data(CityscapesData(root=str(city)), "train").labels.unique().tolist() == [0]
    config = voc_of(tmp_path / "voc", image_name)
    image(tmp_path / f"voc/JPEGImages/{mask_name}.jpg")
    mask(tmp_path / f"voc/SegmentationClassAug/{image_name}.png", 3)
    assert build_data(config, "train").labels.unique().tolist() == [3]


@pytest.mark.parametrize("other", [f"{NFD}.png", f"{NFC}.jpg"])
def test_two_images_of_one_name_are_refused(root: Path, other: str) -> None:
    image(root / f"images/train/{NFC}.png", 5)
    image(root / f"images/train/{other}", 6)
    mask(root / f"labels/train/{NFC}.png", 2)
    with pytest.raises(DataError, match="would share one mask: rename or remove one of them"):
        build_data(FolderData(root=str(root)), "train")
    report = summarise(FolderData(root=str(root)))
    assert report.problem_count == 1 and report.splits["train"].images == 2


@pytest.mark.parametrize("other", [f"{NFD}.png", f"{NFC}.PNG"])
def test_two_masks_of_one_name_are_refused(root: Path, tmp_path: Path, other: str) -> None:
    image(root / f"images/train/{NFC}.png", 5)
    mask(root / f"labels/train/{NFC}.png", 2)
    mask(root / f"labels/train/{other}", 1)
    words = "are one name but for the case of the suffix or the form of its letters in Unicode: rename or remove"
    with pytest.raises(DataError, match=words):
        build_data(FolderData(root=str(root)), "train")
    assert summarise(FolderData(root=str(root))).problem_count == 1
    config = voc_of(tmp_path / "voc", NFC)
    image(tmp_path / f"voc/JPEGImages/{NFC}.jpg")
    for name in (f"{NFC}.png", other):
        mask(tmp_path / "voc/SegmentationClassAug" / name, 3)
    with pytest.raises(DataError, match=words):
        build_data(config, "train")
    city = tmp_path / "city"
    for name in (NFC, NFD):
        city_of(city, "ulm", f"{name}_0")
    with pytest.raises(DataError, match=words):
        build_data(CityscapesData(root=str(city)), "train")


def test_two_class_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate((NFC, NFD, "bee")):
        image(tmp_path / name / "0.png", number)
    config = ProxyConfig(kind="classification", images=str(tmp_path), image_side=16)
    with pytest.raises(DataError, match="are one name but for the form of its letters in Unicode: put the images"):
        load_images(config, 0, None, None)


@given(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=8))
def test_same_is_equal_for_every_form_of_a_name_and_for_no_other(text: str) -> None:
    forms = {unicodedata.normalize(form, text) for form in ("NFC", "NFD")} | {text}
    assert len({same(form) for form in forms}) == 1
    assert same(f"{text}x") != same(text) and same_file(f"a{text}.PNG") == same_file(f"a{text}.png")


@given(st.binary(min_size=1, max_size=6).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_names_of_any_bytes_are_compared(name: bytes) -> None:
    """What is no UTF-8 is itself alone, also beside a name that spells it."""
    text = os.fsdecode(name)
    assert same(same(text)) == same(text) and same(text + LATIN) != same(f"{text}caf\\xe9")
    assert is_hidden(text) == name.startswith(b".")


def test_names_of_any_bytes_are_data(root: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """From the check to the files of an evaluation."""
    for number, split in enumerate(("train", "val")):
        image(root / f"images/{split}/{LATIN}{split}.png", 20 + number)
        mask(root / f"labels/{split}/{LATIN}{split}.png", 1)
        mask(root / f"labels/{split}/{LATIN}.png", 1)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "data: {kind: folder}\nmodel: {backbone: tiny_vgg, head_channels: 8, extra_channels: 0, fc_channels: 0}\n"
        "segment: {steps: 1, crop: 16, pixels: 8, batch_size: 2}\nevaluate: {overlays: true}\n"
        "runtime: {device: cpu, threads: 1}\n"
    )
    given_root = ["--set", f"data.root={root}"]
    assert main(["check-data", str(recipe), *given_root]) == 0
    capsysbinary.readouterr()
    assert main(["train", str(recipe), "--run-dir", str(tmp_path / "run"), *given_root]) == 0
    made = sorted(path.name for path in (tmp_path / "run/predictions").glob("*.png"))
    assert made == sorted(["val.png", f"{LATIN}val.png"])
    (root / f"labels/val/{LATIN}val.png").write_bytes(b"no picture")
    assert main(["check-data", str(recipe), *given_root]) == 1
    assert b"cannot be read as a picture" in capsysbinary.readouterr().out


def test_folders_and_lists_of_any_bytes_are_data(tmp_path: Path) -> None:
    for number, name in enumerate((LATIN, "bee")):
        image(tmp_path / "pictures" / name / f"{LATIN}.png", number)
    config = ProxyConfig(kind="classification", images=str(tmp_path / "pictures"), image_side=16)
    found = load_images(config, 0, None, None)
    assert found.classes == ("bee", LATIN)
    assert found.data.names == [f"bee/{LATIN}.png", f"{LATIN}/{LATIN}.png"]
    voc = voc_of(tmp_path / "voc", LATIN)
    image(tmp_path / f"voc/JPEGImages/{LATIN}.jpg")
    mask(tmp_path / f"voc/SegmentationClassAug/{LATIN}.png", 3)
    assert build_data(voc, "train").names == [LATIN]
    (tmp_path / "voc" / LISTS / "train_aug.txt").write_bytes("one\n".encode("utf-16"))
    with pytest.raises(DataError, match="no readable text file"):
        build_data(voc, "train")
    (tmp_path / "voc" / LISTS / "train_aug.txt").write_text("x" * 300)
    with pytest.raises(DataError, match="does not exist"):
        build_data(voc, "train")


def test_masks_that_are_called_otherwise_are_named(root: Path) -> None:
    (root / "labels/train/train.png").unlink()
    for name in ("train_mask.png", "train.tif", "train2.png", "trainer.png", "._train.png", "other_train.png"):
        mask(root / "labels/train" / name, 1)
    with pytest.raises(DataError, match=r"data\.labels; or is it train\.tif or train_mask\.png there\?$"):
        build_data(FolderData(root=str(root)), "train")


def test_folders_of_pictures_beside_those_of_a_split_are_named(root: Path) -> None:
    image(root / "images/train/night/0.png")
    hide_in(root / "images/train", "x.png")
    (warning,) = [text for text in summarise(FolderData(root=str(root))).warnings if "folders of pictures" in text]
    assert warning.endswith("images/train are passed over: night.")
    (root / "images/train/train.png").unlink()
    with pytest.raises(DataError, match=r"holds no image \(folders in it are not searched: night\)"):
        build_data(FolderData(root=str(root)), "train")
