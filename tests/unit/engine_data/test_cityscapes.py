"""Cityscapes: the official layout and table of labels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config.schema import CityscapesData
from engine.data.check import summarise
from engine.data.listings import class_names
from engine.data.registry import build_data
from engine.errors import DataError

# trainId of labelIds 0 to 33, written down from the official label table; v = void
V = 255
TRAIN_ID = [
    V,
    V,
    V,
    V,
    V,
    V,
    V,
    0,
    1,
    V,
    V,
    2,
    3,
    4,
    V,
    V,
    V,
    5,
    V,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    V,
    V,
    16,
    17,
    18,
]


def add(root: Path, split: str, city: str, number: int, labels: np.ndarray, kind: str = "labelIds") -> str:
    name = f"{city}_{number:06d}_000019"
    for part in ("leftImg8bit", "gtFine"):
        (root / part / split / city).mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(root / f"gtFine/{split}/{city}/{name}_gtFine_{kind}.png")
    grey = np.minimum(labels, 50) * 5
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png")
    return name


@pytest.fixture
def city_root(tmp_path: Path) -> Path:
    """Two cities with two training images each, one validation image; every labelId occurs in each."""
    ids = np.arange(34, dtype=np.uint8).reshape(2, 17)
    for city in ("ulm", "bonn"):
        for number in range(2):
            add(tmp_path, "train", city, number, np.roll(ids, number, axis=1))
    add(tmp_path, "val", "jena", 0, ids)
    return tmp_path


def test_build_cityscapes_label_ids_become_train_ids(city_root: Path) -> None:
    data = build_data(CityscapesData(root=str(city_root)), "train")
    assert data.names == [f"{city}_{n:06d}_000019" for city in ("bonn", "ulm") for n in range(2)]
    assert data.num_classes == 19 and len(set(class_names(CityscapesData()))) == 19
    assert data.classes[0] == "road" and data.classes[10] == "sky" and data.classes[18] == "bicycle"
    assert data.labels[0].flatten().tolist() == TRAIN_ID
    # the picture's grey is 5 * labelId: mask and picture belong together
    for image, labels in zip(data.images[:, 0], data.labels, strict=True):
        assert [TRAIN_ID[int(grey) // 5] for grey in image.flatten()] == labels.flatten().tolist()


def test_build_cityscapes_label_train_ids_are_read_as_they_are(city_root: Path) -> None:
    mapped = build_data(CityscapesData(root=str(city_root)), "train")
    for path in sorted((city_root / "gtFine/train").glob("*/*_labelIds.png")):
        with Image.open(path) as mask:
            new = np.array([TRAIN_ID[v] for v in mask.tobytes()], np.uint8).reshape(mask.height, mask.width)
        Image.fromarray(new).save(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
        path.unlink()
    config = CityscapesData(root=str(city_root), masks="labelTrainIds")
    assert (build_data(config, "train").labels == mapped.labels).all()
    with pytest.raises(DataError, match=r"has no mask \(4 images of 4.*set data.masks to labelTrainIds, which are"):
        build_data(CityscapesData(root=str(city_root)), "train")


def test_build_cityscapes_wrong_values_name_file_and_count(city_root: Path) -> None:
    path = city_root / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png"
    labels = np.full((2, 17), 7, np.uint8)
    labels[0, :3], labels[1, :2] = 34, 254
    Image.fromarray(labels).save(path)
    with pytest.raises(DataError, match=r"ulm_000001.*the value 34 \(3 pixels, .*%\), 254 \(2 pixels, .*0 to 33"):
        build_data(CityscapesData(root=str(city_root)), "train")
    labels[:] = 26
    Image.fromarray(labels).save(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    report = summarise(CityscapesData(root=str(city_root), masks="labelTrainIds"))
    assert any("the value 26 (34 pixels" in p and "set data.masks to labelIds" in p for p in report.problems)
    assert report.problem_count == 5


def test_build_cityscapes_missing_partner_is_named(city_root: Path) -> None:
    mask = city_root / "gtFine/train/bonn/bonn_000001_000019_gtFine_labelIds.png"
    mask.unlink()
    with pytest.raises(
        DataError, match=r"bonn_000001_000019_leftImg8bit.png has no mask: write .*bonn_000001.*labelIds"
    ):
        build_data(CityscapesData(root=str(city_root)), "train")
    (city_root / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png").unlink()
    report = summarise(CityscapesData(root=str(city_root)))
    assert report.problem_count == 1 and str(mask) in report.problems[0]
    assert any("1 mask of split train without an image" in w and "ulm_000000" in w for w in report.warnings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"root": ""}, "data.root is empty.*leftImg8bit and gtFine"),
        ({"train_split": "test"}, r"leftImg8bit/test is no folder \(beside it: train, val\).*data.train_split"),
        ({"train_split": "../train"}, "data.train_split = '../train' leaves data.root"),
    ],
)
def test_build_cityscapes_wrong_setting_names_its_key(city_root: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        build_data(CityscapesData(**{"root": str(city_root), **changes}), "train")
    with pytest.raises(DataError, match=r"leftImg8bit is no folder.*set data\.root"):
        build_data(CityscapesData(root=str(city_root / "gtFine")), "train")


@pytest.mark.needs_data
def test_build_cityscapes_real_sample_has_the_pixels_of_its_masks() -> None:
    default = Path(__file__).resolve().parents[4] / "shared" / "data"
    root = Path(os.environ.get("MMTUI_TEST_DATA", "") or default) / "cityscapes_sample"
    if not root.is_dir():
        pytest.skip(f"the Cityscapes sample is not at {root}; set MMTUI_TEST_DATA to the folder that holds it")
    data = build_data(CityscapesData(root=str(root)), "val")
    assert data.images.shape == (1, 3, 1024, 2048)
    histogram = Image.open(next((root / "gtFine/val").glob("*/*labelIds.png"))).histogram()
    for train_id in (*range(19), V):
        expected = sum(histogram[label] for label in range(34) if TRAIN_ID[label] == train_id)
        assert int((data.labels == train_id).sum()) == expected
    half = build_data(CityscapesData(root=str(root), scale=0.25), "train")
    assert half.images.shape == (3, 3, 256, 512)
    assert int((half.labels == 0).sum()) > 0.2 * half.labels.numel()  # a third of these streets is road
