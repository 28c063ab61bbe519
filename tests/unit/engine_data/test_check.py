"""What ``check-data`` finds in data sets and in folders of proxy images, and what ``check-recipe`` says lacks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.__main__ import main
from engine.config.schema import FolderData, ProxyConfig, VocData
from engine.data.check import DataReport, format_report, summarise
from engine.data.registry import build_data
from engine.errors import DataError

LISTS = "ImageSets/Segmentation"


def noise(path: Path, size: tuple[int, int], seed: int) -> Path:
    """A picture of (width, height) that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, size: tuple[int, int], value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


@pytest.fixture
def config(tmp_path: Path) -> FolderData:
    """Three training images and one for validation, all 6 x 5, no two alike; class b is in one of each split."""
    root = tmp_path / "data"
    for split, count in (("train", 3), ("val", 1)):
        for index in range(count):
            noise(root / f"images/{split}/{split}{index}.png", (6, 5), 10 * len(split) + index)
            mask(root / f"labels/{split}/{split}{index}.png", (6, 5), index % 2)
    (root / "classes.txt").write_text("a\nb\n")
    return FolderData(root=str(root))


@pytest.fixture
def voc(tmp_path: Path) -> VocData:
    root = tmp_path / "VOC2012"
    for number in range(5):
        part = "SegmentationClass" if number == 4 else "SegmentationClassAug"
        noise(root / f"JPEGImages/{number}.jpg", (8, 6), number)
        mask(root / part / f"{number}.png", (8, 6), number)
    (root / LISTS).mkdir(parents=True)
    (root / LISTS / "train_aug.txt").write_text("0\n1\n2\n3\n")
    (root / LISTS / "val.txt").write_text("4\n")
    return VocData(root=str(root))


def words(texts: list[str], *wanted: str) -> list[str]:
    return [text for text in texts if all(word in text for word in wanted)]


def test_sound_data_have_no_warning_of_voids_and_copies(config: FolderData) -> None:
    report = summarise(config)
    assert report.problems == [] and report.warnings == [
        "no pixel of class 1 b in split val: its IoU will be left out or 0.",
        "every labelled pixel of the val split is of class 0 a: the score measures one class.",
    ]


def test_sizes_beyond_ten_are_counted(config: FolderData) -> None:
    root = Path(config.root)
    for index in range(13):
        for copy in range(2 if index < 4 else 1):
            name = f"more{index:02d}_{copy}.png"
            noise(root / "images/train" / name, (20 + index, 5), 100 + 10 * index + copy)
            mask(root / "labels/train" / name, (20 + index, 5), 0)
    report = summarise(config)
    assert sum(report.splits["train"].sizes.values()) == 20 and len(report.splits["train"].sizes) == 14
    (line,) = [line for line in format_report(report).splitlines() if line.startswith("train:")]
    assert line.startswith("train: 20 images, 6x5 (3), 20x5 (2), 21x5 (2), 22x5 (2), 23x5 (2), 24x5 (1), ")
    assert line.endswith(", 28x5 (1) and 4 more sizes, 4 images")
    (line,) = [line for line in format_report(report).splitlines() if line.startswith("val:")]
    assert line == "val: 1 images, 6x5 (1)"


def test_masks_of_void_alone_are_counted_and_the_first_are_named(config: FolderData) -> None:
    root = Path(config.root)
    for index in range(7):
        noise(root / f"images/train/void{index}.png", (6, 5), 500 + index)
        mask(root / f"labels/train/void{index}.png", (6, 5), 255)
    report = summarise(config)
    (warning,) = words(report.warnings, "void alone")
    assert warning.startswith("7 masks of split train hold void alone") and report.problems == []
    assert "void0, void1, void2, void3, void4 and 2 more" in warning


def test_copies_within_a_split_and_across_are_found_by_their_pixels(config: FolderData) -> None:
    root = Path(config.root)
    with Image.open(root / "images/train/train0.png") as picture:
        picture.save(root / "images/train/again.png", compress_level=0)  # other bytes, the same pixels
        picture.save(root / "images/val/other.bmp")
    mask(root / "labels/train/again.png", (6, 5), 0)
    mask(root / "labels/val/other.png", (6, 5), 0)
    assert (root / "images/train/again.png").read_bytes() != (root / "images/train/train0.png").read_bytes()
    report = summarise(config)
    (within,) = words(report.warnings, "within split train")
    assert within.startswith("1 image of the same content") and within.endswith(": again = train0.")
    (across,) = words(report.warnings, "both splits")
    assert "other (val) = train0 (train)" in across


def test_copies_are_not_seen_where_only_the_order_of_pixels_is_alike(config: FolderData) -> None:
    """Twelve pixels of one colour are not four by three of it."""
    root = Path(config.root)
    for name, size in (("flat", (4, 3)), ("tall", (3, 4))):
        Image.new("RGB", size, (9, 9, 9)).save(root / f"images/train/{name}.png")
        mask(root / f"labels/train/{name}.png", size, 0)
    assert not words(summarise(config).warnings, "same content")


def test_lines_of_a_list_that_are_wrong_hide_nothing_else(voc: VocData) -> None:
    root = Path(voc.root)
    (root / LISTS / "train_aug.txt").write_text("0\n1\n0\n2 -1\n/../x.jpg /y.png\n3\n0\n1\n")
    (root / "JPEGImages/3.jpg").write_bytes(b"no picture")
    mask(root / "SegmentationClassAug/1.png", (8, 6), 99)
    report = summarise(voc)
    assert words(report.problems, "train_aug.txt names 0 twice (lines 1 and 3)", "leave each image there once")
    assert words(report.problems, "names 0 twice (lines 1 and 7)") and words(
        report.problems, "names 1 twice (lines 2 and 8)"
    )
    assert words(report.problems, "line 4 is '2 -1'") and words(report.problems, "line 5 = '../x.jpg'")
    assert words(report.problems, "3.jpg cannot be read") and words(report.problems, "1.png holds the value 99")
    assert report.problem_count == 7 and report.fingerprint == ""
    assert report.splits["train"].images == 1 and report.splits["val"].images == 1
    with pytest.raises(DataError, match=r"names 0 twice \(lines 1 and 3\)"):
        build_data(voc, "train")
    assert build_data(voc, "val").names == ["4"]


def test_two_images_of_one_mask_hide_nothing_else(config: FolderData) -> None:
    root = Path(config.root)
    noise(root / "images/train/train1.jpg", (6, 5), 77)
    (root / "labels/train/train2.png").unlink()
    report = summarise(config)
    assert report.problem_count == 2 and report.splits["train"].images == 2
    assert words(report.problems, "train1.jpg", "train1.png", "share one mask") and words(
        report.problems, "train2.png has no mask"
    )


def proxy_report(config: FolderData, folder: Path | str, **changes: object) -> DataReport:
    asked = ProxyConfig.model_validate({"kind": "classification", "images": str(folder), "image_side": 16, **changes})
    return summarise(config, None, asked, seed=0)


def test_images_of_a_proxy_task_are_counted_by_class(config: FolderData, tmp_path: Path) -> None:
    for number in range(5):
        noise(tmp_path / f"pictures/{'ant' if number < 3 else 'bee'}/deep/{number}.png", (20, 18), number)
    report = proxy_report(config, tmp_path / "pictures")
    assert report.problems == [] and report.proxy is not None
    assert (report.proxy.images, report.proxy.files, report.proxy.classes) == (5, 5, {"ant": 3, "bee": 2})
    assert (
        f"proxy: 5 images of {tmp_path / 'pictures'}, 2 classes: ant (3), bee (2)" in format_report(report).splitlines()
    )
    some = proxy_report(config, tmp_path / "pictures", kind="jigsaw", max_images=2)
    assert f"proxy: 2 images (of 5) of {tmp_path / 'pictures'}" in format_report(some).splitlines()
    assert summarise(config).proxy is None and "proxy" not in format_report(summarise(config))


def test_images_of_a_proxy_task_that_are_no_images_are_all_named(config: FolderData, tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for number in range(4):
        noise(root / f"ant/{number}.png", (20, 18), number)
    for number in (1, 3):
        (root / f"ant/{number}.png").write_bytes(b"no picture")
    report = proxy_report(config, root, kind="rotation")
    assert report.problem_count == 2 and report.proxy is not None and report.proxy.images == 2
    assert words(report.problems, "ant/1.png cannot be read as a picture") and words(
        report.problems, "ant/3.png cannot be read as a picture"
    )
    assert format_report(report).endswith("\n2 problems found")
    assert words(proxy_report(config, root).problems, "holds one class only, ant")
    noise(root / "bee/0.png", (20, 18), 9)
    for name in ("loose.png", "other.png"):
        noise(root / name, (20, 18), 10)
    problems = proxy_report(config, root).problems
    assert words(problems, "loose.png lies in no class folder (2 images do not)") and words(
        problems, "ant/1.png cannot be read"
    )


def test_folder_of_a_proxy_task_that_is_not_there_is_a_problem(config: FolderData, tmp_path: Path) -> None:
    assert words(proxy_report(config, "/nope").problems, "/nope is no folder: set proxy.images")
    (tmp_path / "empty").mkdir()
    assert words(proxy_report(config, tmp_path / "empty").problems, "holds no images")
    assert words(proxy_report(config, "").problems, "proxy.images is empty", "one folder of images a class")
    assert proxy_report(config, "", kind="moco").problems == []


def test_check_data_command_reads_the_folder_of_the_proxy_task(
    config: FolderData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "data: {kind: folder}\nproxy: {kind: classification, image_side: 16, crop: 16}\nsegment: {steps: 1}\n"
    )
    given = ["check-data", str(recipe), "--set", f"data.root={config.root}"]
    assert main(given) == 1
    assert "problem: proxy.images is empty" in capsys.readouterr().out
    assert main([*given, "--set", "proxy.images=/nope"]) == 1
    assert "problem: /nope is no folder" in capsys.readouterr().out
    for name in ("ant", "bee"):
        noise(tmp_path / f"pictures/{name}/0.png", (20, 18), 0)
    assert main([*given, "--set", f"proxy.images={tmp_path / 'pictures'}"]) == 0
    assert "no problems found" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["voc_vgg16_imagenet_mixmatch", "cityscapes_vgg16_imagenet_baseline"])
def test_check_recipe_says_which_folders_lack(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-recipe", name]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["name"] == name
    lines = err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("not ready: data.root is empty: add --set data.root=FOLDER")
    assert (
        lines[1] == "not ready: proxy.images is empty: add --set proxy.images=FOLDER, with one folder of images a class"
    )
    assert main(["check-recipe", name, "--set", "data.root=/a", "--set", "proxy.images=/b"]) == 0
    assert capsys.readouterr().err == ""


def test_check_recipe_asks_for_nothing_that_the_task_takes_from_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-recipe", "shapes_colorization_mixmatch"]) == 0 and capsys.readouterr().err == ""
