"""PASCAL VOC: lists, palette masks, and what each kind of bad input is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.config.schema import VocData
from engine.data.check import summarise
from engine.data.listings import class_names
from engine.data.registry import build_data
from engine.errors import DataError

Damage = Callable[[Path], object]
LISTS = "ImageSets/Segmentation"


def palette_mask(indices: NDArray[np.uint8]) -> Image.Image:
    """A palette picture of these indices whose colours are no indices."""
    mask = Image.fromarray(indices).convert("L")
    mask.putpalette([channel for index in range(256) for channel in ((index * 37) % 256, 200, 255 - index)])
    return mask


def draw_tree(root: Path, masks: dict[str, Image.Image], folder: str = "SegmentationClassAug") -> Path:
    """A VOC tree of these masks (the last two for validation), images drawn from them: red = 10 * label."""
    for part in ("JPEGImages", "SegmentationClass", folder, LISTS):
        (root / part).mkdir(parents=True, exist_ok=True)
    names = sorted(masks)
    for name in names:
        masks[name].save(root / ("SegmentationClass" if name in names[-2:] else folder) / f"{name}.png")
        red = np.minimum(np.asarray(masks[name], np.uint8), 25) * 10
        Image.fromarray(np.stack([red, red, red], axis=2)).save(root / f"JPEGImages/{name}.jpg", quality=95)
    (root / LISTS / "train_aug.txt").write_text("\n".join(names[:-2]) + "\n")
    (root / LISTS / "val.txt").write_text("\n".join(names[-2:]) + "\n")
    return root


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """Four training and two validation images of 8 x 12 pixels in two halves, a void pixel in the corner."""
    masks = {}
    for number in range(6):
        indices = np.full((8, 12), number, np.uint8)
        indices[:, 6:] = 20 - number
        indices[0, 0] = 255
        masks[f"2007_00000{number}"] = palette_mask(indices)
    return draw_tree(tmp_path / "VOC2012", masks)


def test_build_voc_reads_palette_masks_as_indices_in_list_order(voc_root: Path) -> None:
    (voc_root / LISTS / "train_aug.txt").write_text("2007_000002\n\n2007_000000\n")
    data = build_data(VocData(root=str(voc_root)), "train")
    assert data.names == ["2007_000002", "2007_000000"]
    assert data.num_classes == 21 and data.classes[0] == "background" and data.classes[20] == "tvmonitor"
    for number, labels in zip((2, 0), data.labels.numpy(), strict=True):
        expected = np.array([[number] * 6 + [20 - number] * 6] * 8)
        expected[0, 0] = 255
        assert (labels == expected).all()
    assert abs(int(data.images[0, 0, 4, 3]) - 20) <= 3 and abs(int(data.images[0, 0, 4, 9]) - 180) <= 3
    assert build_data(VocData(root=str(voc_root)), "val").names == ["2007_000004", "2007_000005"]


def test_build_voc_lists_of_paths_are_the_lists_of_names(voc_root: Path) -> None:
    config = VocData(root=str(voc_root))
    plain = build_data(config, "train")
    rows = [f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png" for name in plain.names]
    rows[1] = rows[1].replace(" /", "  ").removeprefix("/")
    (voc_root / LISTS / "sbd.txt").write_text("\n".join(rows))
    paths = build_data(config.model_copy(update={"train_list": f"{LISTS}/sbd.txt", "masks": "unused"}), "train")
    assert paths.names == plain.names
    assert (paths.images == plain.images).all() and (paths.labels == plain.labels).all()


def test_build_voc_max_train_chooses_some_of_the_list(voc_root: Path) -> None:
    chosen = build_data(VocData(root=str(voc_root), max_train=2, data_seed=1), "train")
    assert len(chosen) == 2 and chosen.names == sorted(chosen.names)
    choices = {
        tuple(build_data(VocData(root=str(voc_root), max_train=2, data_seed=s), "train").names) for s in range(9)
    }
    assert len(choices) > 1


def write(path: str, content: str) -> Damage:
    return lambda root: (root / path).write_text(content)


def save(path: str, picture: Image.Image) -> Damage:
    return lambda root: picture.save(root / path)


TRAIN, MASK = f"{LISTS}/train_aug.txt", "SegmentationClassAug/2007_000001.png"
COLOURED = Image.new("RGB", (12, 8), (128, 0, 0))
BAD_INPUT: dict[str, tuple[Damage, list[str]]] = {
    "mask_of_colours": (save(MASK, COLOURED), [MASK, "mode RGB", "class indices", "not one of colours"]),
    "value_21": (
        save(MASK, Image.new("L", (12, 8), 21)),
        [MASK, "the value 21 (96 pixels, 100 %)", "0 to 20", "255"],
    ),
    "grey_of_colours": (save(MASK, COLOURED.convert("L")), [MASK, "the value 38", "palette PNG"]),
    "mask_missing": (lambda root: (root / MASK).unlink(), ["2007_000001.jpg has no mask", MASK, "data.masks"]),
    "image_missing": (
        lambda root: (root / "JPEGImages/2007_000002.jpg").unlink(),
        ["JPEGImages/2007_000002.jpg does not exist", "list"],
    ),
    "list_missing": (lambda root: (root / TRAIN).unlink(), [TRAIN, "does not exist (beside it: val.txt)", "SBD"]),
    "list_empty": (write(TRAIN, "\n \n"), [TRAIN, "is empty"]),
    "listed_twice": (write(TRAIN, "2007_000001\n2007_000001\n"), [TRAIN, "2007_000001 twice"]),
    "list_of_a_class": (write(TRAIN, "2007_000001 -1\n"), ["train_aug.txt line 1 is '2007_000001 -1'", "name"]),
    "list_leaves_root": (write(TRAIN, "/../a.jpg /b.png"), ["train_aug.txt line 1 = '../a.jpg'", "data.root"]),
    "masks_not_there": (
        lambda root: shutil.rmtree(root / "SegmentationClassAug"),
        ["SegmentationClassAug is no folder (beside it:", "SegmentationClass", "data.masks"],
    ),
}


@pytest.mark.parametrize("case", sorted(BAD_INPUT))
def test_build_voc_bad_input_names_file_value_and_remedy(voc_root: Path, case: str) -> None:
    damage, words = BAD_INPUT[case]
    damage(voc_root)
    with pytest.raises(DataError) as caught:
        build_data(VocData(root=str(voc_root)), "train")
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_build_voc_root_one_folder_up_names_the_right_one(voc_root: Path) -> None:
    with pytest.raises(DataError, match=r"set data\.root to .*VOC2012\.$"):
        build_data(VocData(root=str(voc_root.parent)), "train")


def test_summarise_voc_lists_every_bad_file_and_counts_the_rest(voc_root: Path) -> None:
    (voc_root / MASK).unlink()
    (voc_root / "JPEGImages/2007_000002.jpg").write_bytes(b"no picture")
    (voc_root / "JPEGImages/2007_000003.jpg").unlink()
    report = summarise(VocData(root=str(voc_root)))
    assert report.problem_count == 3 and report.splits["train"].images == 1 and report.splits["val"].images == 2
    assert (
        report.splits["val"].void == 2
        and report.splits["val"].pixels[4] == 47
        and report.splits["val"].pixels[16] == 48
    )
    assert report.fingerprint == ""


@pytest.fixture
def real_masks() -> list[Path]:
    """Forty masks of VOC 2012."""
    default = Path(__file__).resolve().parents[4] / "shared" / "data"
    root = Path(os.environ.get("MMTUI_TEST_DATA", "") or default) / "voc2012_masks"
    if not root.is_dir():
        pytest.skip(f"VOC masks are not at {root}; set MMTUI_TEST_DATA to the folder that holds them")
    return sorted(root.glob("*.png"))[:40]


@pytest.mark.needs_data
def test_build_voc_real_masks_keep_every_index(real_masks: list[Path], tmp_path: Path) -> None:
    root = draw_tree(tmp_path, {path.stem: Image.open(path) for path in real_masks})
    data = build_data(VocData(root=str(root)), "train")
    assert len(data) == 38 and 255 in data.labels.unique().tolist()
    for index, path in enumerate(real_masks[:38]):
        with Image.open(path) as mask:
            pixels = np.frombuffer(mask.tobytes(), np.uint8).reshape(mask.height, mask.width)
        height, width = data.sizes[index].tolist()
        assert (height, width) == pixels.shape and (data.labels[index, :height, :width].numpy() == pixels).all()
        assert bool((data.labels[index, height:] == 255).all()) and bool((data.labels[index, :, width:] == 255).all())
    assert class_names(VocData()) == data.classes
