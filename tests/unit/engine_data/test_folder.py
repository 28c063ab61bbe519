"""Folders of images and masks: what is read, and what each kind of bad input is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.config.schema import FolderData
from engine.data.check import SplitSummary, format_report, summarise
from engine.data.folder import list_split
from engine.data.listings import class_names
from engine.data.pairs import scaled_size
from engine.data.registry import build_data
from engine.errors import DataError

Damage = Callable[[Path], object]
CLASSES = ("sky", "road", "car")


def save_pair(root: Path, split: str, name: str, mask: NDArray[np.uint8], suffix: str = ".png") -> None:
    """An image that encodes its mask (red = 40 * label) and the mask itself."""
    picture = np.stack([np.minimum(mask, 6) * 40, np.full_like(mask, 7), np.full_like(mask, 200)], axis=2)
    for part in ("images", "labels"):
        (root / part / split).mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(root / "images" / split / f"{name}{suffix}")
    Image.fromarray(mask).save(root / "labels" / split / f"{name}.png")


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Six training and two validation images, all 8 high and 10 wide, with a void pixel in each corner."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for index in range(count):
            mask = rng.integers(0, 3, (8, 10), dtype=np.uint8)
            mask[0, 0] = 255
            save_pair(tmp_path, split, f"{split}_{index}", mask)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return tmp_path


@pytest.fixture
def camvid() -> FolderData:
    """CamVid at a quarter of its size; 11 is void there."""
    default = Path(__file__).resolve().parents[4] / "shared" / "data"
    root = Path(os.environ.get("MMTUI_TEST_DATA", default)) / "camvid"
    if not root.is_dir():
        pytest.skip(f"CamVid is not at {root}; set MMTUI_TEST_DATA to the folder that holds it")
    return FolderData(root=str(root), void_labels=(11,), scale=0.25)


def test_build_folder_reads_pixels_labels_and_names(data_root: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    data = build_data(FolderData(root=str(data_root)), "train", 10**6, lambda *call: calls.append(call))
    assert data.images.shape == (6, 3, 8, 10) and data.images.dtype == torch.uint8
    assert data.classes == CLASSES and data.num_classes == 3
    assert data.names == [f"train_{i}" for i in range(6)]
    assert data.sizes.tolist() == [[8, 10]] * 6
    assert bool((data.labels[:, 0, 0] == 255).all())
    known = data.labels != 255
    assert torch.equal(data.images[:, 0][known], data.labels[known] * 40)
    assert calls[-1] == ("decoding train images", 6, 6)


def test_build_folder_mixed_sizes_are_padded_and_sizes_kept(data_root: Path) -> None:
    save_pair(data_root, "val", "wide", np.full((4, 16), 2, np.uint8))
    data = build_data(FolderData(root=str(data_root)), "val")
    wide = data.names.index("wide")
    assert data.images.shape == (3, 3, 8, 16)
    assert data.sizes[wide].tolist() == [4, 16]
    assert bool((data.labels[wide, :4] == 2).all()) and bool((data.labels[wide, 4:] == 255).all())
    assert int(data.images[wide, :, 4:].sum()) == 0


def test_build_folder_void_labels_become_255(data_root: Path) -> None:
    save_pair(data_root, "val", "odd", np.array([[0, 9], [77, 1]], np.uint8))
    data = build_data(FolderData(root=str(data_root), void_labels=(9, 77, 255)), "val")
    assert data.labels[data.names.index("odd"), :2, :2].tolist() == [[0, 255], [255, 1]]


def test_build_folder_palette_mask_is_read_as_indices(data_root: Path) -> None:
    mask = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8)).convert("P")
    mask.putdata([0, 1, 2, 255])
    mask.putpalette([200, 10, 10] * 256)
    save_pair(data_root, "val", "p", np.zeros((2, 2), np.uint8))
    mask.save(data_root / "labels/val/p.png")
    data = build_data(FolderData(root=str(data_root)), "val")
    assert data.labels[data.names.index("p"), :2, :2].tolist() == [[0, 1], [2, 255]]


def test_build_folder_gray_and_alpha_images_become_rgb(data_root: Path) -> None:
    for name, picture in (("g", Image.new("L", (10, 8), 90)), ("a", Image.new("RGBA", (10, 8), (90, 90, 90, 7)))):
        save_pair(data_root, "val", name, np.zeros((8, 10), np.uint8))
        picture.save(data_root / f"images/val/{name}.png")
    data = build_data(FolderData(root=str(data_root)), "val")
    for name in "ga":
        assert bool((data.images[data.names.index(name)] == 90).all())


def test_build_folder_scale_resizes_images_smoothly_and_labels_by_nearest(data_root: Path) -> None:
    mask = np.zeros((8, 10), np.uint8)
    mask[:, 5:] = 2
    save_pair(data_root, "val", "half", mask)
    data = build_data(FolderData(root=str(data_root), scale=0.5), "val")
    half = data.names.index("half")
    assert data.images.shape[2:] == (4, 5)
    assert set(data.labels[half].unique().tolist()) == {0, 2}
    values = set(data.images[half, 0].unique().tolist())
    assert {0, 80} <= values and any(0 < v < 80 for v in values)
    assert scaled_size((1, 3), 0.1) == (1, 1)


def test_list_pairs_max_train_is_a_choice_fixed_by_data_seed(data_root: Path) -> None:
    def chosen(seed: int, **limits: int) -> list[str]:
        return [p.name for p in list_split(FolderData(root=str(data_root), data_seed=seed, **limits), "train").pairs]

    everything = chosen(0)
    choices = [chosen(seed, max_train=3) for seed in range(12)]
    assert all(len(set(c)) == 3 and c == sorted(c) and set(c) < set(everything) for c in choices)
    assert chosen(5, max_train=3) == choices[5]
    assert len({tuple(c) for c in choices}) > 3
    assert chosen(0, max_train=99) == everything == chosen(0, max_val=1)


def test_build_folder_budget_too_small_names_sizes_before_decoding(data_root: Path) -> None:
    path = data_root / "images/train/train_0.png"
    path.write_bytes(path.read_bytes()[:60])  # cut short: the header can be read, the pixels cannot
    with pytest.raises(DataError, match=r"6 images of up to 10x8.*memory_budget_gib.*data.max_train.*data.scale"):
        build_data(FolderData(root=str(data_root)), "train", 1919)
    with pytest.raises(DataError, match="train_0"):
        build_data(FolderData(root=str(data_root)), "train", 1920)


def remove(path: str) -> Damage:
    def damage(root: Path) -> None:
        target = root / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return damage


def write(path: str, content: bytes) -> Damage:
    return lambda root: (root / path).write_bytes(content)


def save(path: str, picture: Image.Image) -> Damage:
    return lambda root: picture.save(root / path)


def folder(path: str) -> Damage:
    def put(root: Path) -> None:
        (root / path).unlink()
        (root / path).mkdir()

    return put


def link(path: str) -> Damage:
    def put(root: Path) -> None:
        (root / path).unlink()
        (root / path).symlink_to(root / "nowhere.png")

    return put


def cut(path: str) -> Damage:
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:-40])


def mask_with(value: int) -> Image.Image:
    mask = np.zeros((8, 10), np.uint8)
    mask[2, 3] = value
    return Image.fromarray(mask)


IMAGE, MASK = "images/train/train_3.png", "labels/train/train_3.png"
BAD_INPUT: dict[str, tuple[Damage, list[str]]] = {
    "classes_missing": (remove("classes.txt"), ["classes.txt", "does not exist", "one class name a line"]),
    "classes_empty": (write("classes.txt", b"\n \n"), ["classes.txt", "is empty"]),
    "classes_blank_line": (write("classes.txt", b"a\n\nb\n"), ["classes.txt line 2 is blank"]),
    "classes_twice": (write("classes.txt", b"a\nb\na\n"), ["classes.txt line 3", "'a'"]),
    "classes_binary": (write("classes.txt", b"\xff\xfe\x00"), ["classes.txt", "no readable text"]),
    "classes_too_many": (write("classes.txt", b"\n".join(b"c%d" % i for i in range(256))), ["256 lines", "255"]),
    "images_missing": (remove("images/train"), ["images/train", "is no folder", "val", "data.images"]),
    "labels_missing": (remove("labels/train"), ["labels/train", "is no folder", "data.labels"]),
    "mask_missing": (remove(MASK), ["train_3.png has no mask", "write ", MASK, "data.labels"]),
    "value_out_of_range": (
        save(MASK, mask_with(7)),
        [MASK, "the value 7", "3 classes", "0 to 2", "set data.void_labels to [255, 7]"],
    ),
    "image_is_folder": (
        folder(IMAGE),
        [IMAGE, "train_3.png is a folder: put a picture there, or take it out of the split"],
    ),
    "image_is_lost_link": (link(IMAGE), [IMAGE, "train_3.png is a link to what does not exist: put a picture there"]),
    "mask_is_folder": (
        folder(MASK),
        ["train_3.png has no mask: ", f"{MASK} is a folder: write ", "class indices"],
    ),
    "mask_is_lost_link": (link(MASK), ["has no mask: ", f"{MASK} is a link to what does not exist: write "]),
    "size_differs": (save(MASK, Image.new("L", (9, 8))), [MASK, "9x8", IMAGE, "10x8", "same size"]),
    "image_is_text": (write(IMAGE, b"hello"), [IMAGE, "cannot be read", "take it out"]),
    "image_cut": (cut(IMAGE), [IMAGE, "cannot be read"]),
    "mask_cut": (cut(MASK), [MASK, "cannot be read"]),
    "mask_is_text": (write(MASK, b"hello"), [MASK, "cannot be read"]),
    "mask_is_colour": (save(MASK, Image.new("RGB", (10, 8))), [MASK, "mode RGB", "class indices"]),
    "mask_16_bit": (save(MASK, Image.new("I;16", (10, 8), 300)), [MASK, "300", "more than 8 bits", "class indices"]),
    "image_of_floats": (
        lambda root: Image.new("F", (10, 8)).save(root / IMAGE, format="TIFF"),
        [IMAGE, "mode F", "8-bit"],
    ),
    "two_images_one_mask": (
        save("images/train/train_3.jpg", Image.new("RGB", (10, 8))),
        ["train_3.jpg", "train_3.png", "share one mask"],
    ),
}


@pytest.mark.parametrize("case", sorted(BAD_INPUT))
def test_build_folder_bad_input_names_file_value_and_remedy(data_root: Path, case: str) -> None:
    damage, words = BAD_INPUT[case]
    damage(data_root)
    with pytest.raises(DataError) as caught:
        build_data(FolderData(root=str(data_root)), "train")
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_build_folder_empty_split_is_refused(data_root: Path) -> None:
    for path in (data_root / "images/val").iterdir():
        path.unlink()
    (data_root / "images/val/readme.txt").write_text("no picture")
    (data_root / "images/val/._train_0.png").write_text("left by a Mac")
    with pytest.raises(DataError, match=r"images/val holds no image"):
        build_data(FolderData(root=str(data_root)), "val")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"root": ""}, "data.root is empty"),
        ({"root": "ROOT/nowhere"}, "data.root /.*/nowhere is no folder"),
        ({"images": "../{split}"}, r"data.images = '../train' leaves data.root"),
        ({"labels": "/etc"}, r"data.labels = '/etc' leaves data.root"),
        ({"classes": "../classes.txt"}, "data.classes"),
        ({"train_split": "training"}, r"images/training is no folder \(beside it: train, val\).*train_split"),
    ],
)
def test_build_folder_wrong_setting_names_its_key(data_root: Path, changes: dict[str, str], words: str) -> None:
    told = {key: value.replace("ROOT", str(data_root)) for key, value in {"root": "ROOT", **changes}.items()}
    with pytest.raises(DataError, match=words):
        build_data(FolderData(**told), "train")


def test_class_names_with_bom_and_windows_line_ends_are_clean(data_root: Path) -> None:
    (data_root / "classes.txt").write_bytes("\ufeffsky\r\nroad \r\n\r\n".encode())
    assert class_names(FolderData(root=str(data_root))) == ("sky", "road")


def test_summarise_folder_counts_pixels_and_lists_every_problem(data_root: Path) -> None:
    config = FolderData(root=str(data_root))
    clean = summarise(config)
    assert clean.problems == [] and clean.problem_count == 0
    data = build_data(config, "train")
    expected = [int((data.labels == c).sum()) for c in range(3)]
    assert clean.splits["train"] == SplitSummary(6, {"10x8": 6}, expected, [6, 6, 6], 6)
    (data_root / "classes.txt").write_text("sky\nroad\ncar\nbus\n")
    (data_root / IMAGE).write_bytes(b"no picture")
    (data_root / "labels/train/train_1.png").unlink()
    mask_with(9).save(data_root / "labels/val/val_0.png")
    shutil.copy(data_root / "images/train/train_0.png", data_root / "images/val/train_0.png")
    shutil.copy(data_root / "labels/train/train_0.png", data_root / "labels/val/train_0.png")
    report = summarise(config)
    assert report.problem_count == 3
    assert all(any(word in p for p in report.problems) for word in ("train_3.png", "train_1.png", "value 9"))
    assert report.splits["train"].images == 4
    assert any("train_0" in w and "both splits" in w for w in report.warnings)
    assert sum("3 bus" in w for w in report.warnings) == 2
    text = format_report(report)
    assert "train: 4 images, 10x8 (4)" in text and text.endswith("\n3 problems found")
    assert all(problem in text for problem in report.problems)
    assert "no problems found" in format_report(clean)


def test_summarise_missing_split_is_a_problem_and_the_rest_is_read(data_root: Path) -> None:
    shutil.rmtree(data_root / "images/val")
    report = summarise(FolderData(root=str(data_root)))
    assert report.splits["train"].images == 6 and report.splits["val"].images == 0
    assert report.problem_count == 1 and "images/val" in report.problems[0]


@pytest.mark.needs_data
def test_build_folder_camvid_reads_real_images(camvid: FolderData) -> None:
    data = build_data(camvid.model_copy(update={"max_train": 20}), "train", 8 * 1024**3)
    assert data.images.shape == (20, 3, 90, 120)
    assert data.num_classes == 11 and data.classes[3] == "road"
    values = set(data.labels.unique().tolist())
    assert values <= {*range(11), 255} and 255 in values and len(values) > 8
    assert 60 < float(data.images.float().mean()) < 140


@pytest.mark.needs_data
def test_build_folder_camvid_without_void_label_suggests_it(camvid: FolderData) -> None:
    config = camvid.model_copy(update={"void_labels": (255,), "max_val": 5})
    with pytest.raises(DataError, match=r"value 11 .*11 classes.*void_labels to \[255, 11\]"):
        build_data(config, "val")
