"""Labels that teach or measure nothing are refused, doubtful ones are told; counts held against plain loops."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from engine.config.schema import FolderData, ShapesData, VocData
from engine.data import label_counts, supervision
from engine.data.check import summarise
from engine.data.dataset import SegmentationData
from engine.data.label_counts import count_labels
from engine.data.registry import build_data
from engine.data.supervision import Labels, doubts, refuse, shared_pictures
from engine.errors import DataError

CLASSES = ("sky", "road", "car")
DATA = FolderData()


def split(seed: int, count: int, values: tuple[int, ...] = (0, 1, 2, 255)) -> SegmentationData:
    """Images of several sizes in the upper left corners of one canvas."""
    rng = np.random.default_rng(seed)
    labels = np.full((count, 13, 17), 255, np.uint8)
    sizes = np.stack([rng.integers(1, 14, count), rng.integers(1, 18, count)], axis=1)
    for one, (height, width) in zip(labels, sizes, strict=True):
        one[:height, :width] = rng.choice(values, (height, width))
    names = [str(number) for number in range(count)]
    images = torch.zeros((count, 3, 13, 17), dtype=torch.uint8)
    return SegmentationData(images, torch.from_numpy(labels), torch.from_numpy(sizes), names, CLASSES)


def naive(data: SegmentationData, chosen: list[int]) -> tuple[tuple[int, ...], int]:
    """Pixels of each class, and void ones within images."""
    seen: Counter[int] = Counter()
    for index in chosen:
        height, width = data.sizes[index].tolist()
        for row in data.labels[index].tolist()[:height]:
            seen.update(row[:width])
    return tuple(seen[index] for index in range(3)), seen[255]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [2**31, 13 * 17 * 4])
def test_labels_are_counted_as_a_plain_loop_counts_them(seed: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_counts, "MOST_PIXELS", most)
    monkeypatch.setattr(label_counts, "_CHUNK", 13 * 17 * 3)
    data = split(seed, 11)
    found = count_labels(data, "train")
    chosen = list(range(11)) if most == 2**31 else [0, 2, 5, 8]
    assert (found.pixels, found.void) == naive(data, chosen)
    assert (found.looked_at, found.images, found.whole) == (len(chosen), 11, most == 2**31)


def labels(split: str, *pixels: int, void: int = 0, images: int = 5, looked_at: int = 5) -> Labels:
    return Labels(split, pixels, void, looked_at, images)


@pytest.mark.parametrize("found, words", [
    (labels("train", 0, 0, 0, void=90), "every pixel of the train split is void (255), nothing would be learned"),
    (labels("val", 0, 0, 0, void=90), "every pixel of the val split is void (255), nothing would be measured"),
    (labels("train", 0, 9, 0, void=9), "of one class, 1 road (50.0 % of all pixels are void)"),
    (labels("train", 9, 0, 0), "of one class, 0 sky: there is nothing to tell it from"),
])  # fmt: skip
def test_what_can_teach_or_measure_nothing_is_refused(found: Labels, words: str) -> None:
    with pytest.raises(DataError) as caught:
        refuse(DATA, found, CLASSES)
    assert words in str(caught.value) and "write masks of class indices 0 to 2 with 255 for void" in str(caught.value)


@pytest.mark.parametrize("found", [
    labels("train", 5, 5, 0), labels("val", 0, 0, 3), labels("train", 1, 1, 1, void=900),
    labels("train", 0, 0, 0, void=9, images=50), labels("train", 7, 0, 0, images=50),
])  # fmt: skip
def test_what_may_teach_something_is_not_refused(found: Labels) -> None:
    refuse(DATA, found, CLASSES)


@pytest.mark.parametrize("found, expected", [
    (labels("train", 5, 5, 5, void=15), []),
    (labels("train", 5, 5, 0), ["no pixel of the train split is of class 2 car: it cannot be learned"]),
    (labels("val", 5, 5, 0), []),
    (labels("val", 5, 0, 0),
     ["every labelled pixel of the val split is of class 0 sky: the score measures one class"]),
    (labels("train", 1, 1, 1, void=9),
     ["75.0 % of the pixels of the train split are void: nothing is learned from them"]),
    (labels("val", 1, 1, 1, void=4, looked_at=2),
     ["57.1 % of the pixels of the val split (2 of 5 images looked at) are void: the score knows nothing of them"]),
])  # fmt: skip
def test_what_makes_the_score_doubtful_is_told(found: Labels, expected: list[str]) -> None:
    assert list(doubts(DATA, found, CLASSES)) == expected


def test_some_images_speak_for_a_split_and_are_doubted_not_refused() -> None:
    """A smoke test must not be refused because the few images it takes are of one class."""
    for found, words in (
        (labels("train", 9, 0, 0), "of one class, 0 sky: there is nothing to tell it from"),
        (labels("val", 0, 0, 0, void=9), "every pixel of the val split is void (255), nothing would be measured"),
    ):
        chosen = FolderData(max_train=5, max_val=5)
        refuse(chosen, found, CLASSES)
        (text,) = doubts(chosen, found, CLASSES)
        assert words in text and f"(of the images that data.max_{found.split} chooses)" in text
        with pytest.raises(DataError):
            refuse(FolderData(max_val=5) if found.split == "train" else FolderData(max_train=5), found, CLASSES)


@pytest.mark.parametrize("config, classes, expected", [
    (FolderData(), ("a", "b"), "with data.label_map (masks of 0 and 255: 'data.label_map={255: 1}')"),
    (FolderData(label_map={"7": 1}), ("a", "b"), "what their values mean with data.label_map; look"),
    (FolderData(), ("a", "b", "c"), "what their values mean with data.label_map; look"),
    (VocData(), ("a", "b"), "with 255 for void; look"),
    (FolderData(), ("a",), "name at least two classes, not 1."),
])  # fmt: skip
def test_remedy_is_one_that_there_is(config: Any, classes: tuple[str, ...], expected: str) -> None:
    found = Labels("train", (9, *[0] * (len(classes) - 1)), 9, 5, 5)
    with pytest.raises(DataError) as caught:
        refuse(config, found, classes)
    assert expected in str(caught.value) and "mmtui check-data" not in str(caught.value)


def test_many_absent_classes_are_counted(tmp_path: Path) -> None:
    (text,) = doubts(DATA, Labels("train", (1, 0, 0, 0, 0, 0, 0, 0), 0, 1, 1), [f"c{n}" for n in range(8)])
    assert "class 1 c1, 2 c2, 3 c3, 4 c4, 5 c5 and 2 more: they cannot be learned" in text


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, first in (("train", 0), ("val", 100)):
        for number in range(3):
            write(tmp_path, part, f"{part}{number}", noise(first + number))
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    return tmp_path


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)


def write(root: Path, part: str, name: str, picture: NDArray[Any]) -> None:
    for kind in ("images", "labels"):
        (root / kind / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(root / "images" / part / f"{name}.bmp")  # all files are of one length
    Image.fromarray((noise(1)[..., 0] % 2).astype(np.uint8)).save(root / "labels" / part / f"{name}.png")


def test_pictures_of_both_splits_are_found_by_what_they_hold(folder: Path) -> None:
    config = FolderData(root=str(folder))
    assert shared_pictures(config) == ""
    write(folder, "val", "another name", noise(1))
    write(folder, "val", "train0", noise(77))
    expected = "1 of 5 pictures of the val split are in the train split too, the score is too good: another name.bmp"
    assert shared_pictures(config) == expected
    both = FolderData(root=str(folder), val_split="train")
    assert shared_pictures(both).startswith("3 of 3 pictures")


@settings(max_examples=30, deadline=None)
@given(*[st.lists(st.sampled_from([b"", b"a", b"bb", b"b" * 5000, b"b" * 4999 + b"c", b"c" * 5000]), min_size=1)] * 2)
def test_shared_pictures_are_those_of_a_plain_loop(train: list[bytes], val: list[bytes]) -> None:
    """Of files that differ early, late, in their length alone, and of empty ones."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part, contents in (("train", train), ("val", val)):
            for number, content in enumerate(contents):
                write(root, part, f"{part}{number}", noise(0))
                (root / "images" / part / f"{part}{number}.bmp").write_bytes(content)
        (root / "classes.txt").write_text("sky\nroad\n")
        found = shared_pictures(FolderData(root=str(root)))
    names = sorted(f"val{number}.bmp" for number, content in enumerate(val) if content and content in train)
    assert found.partition(" pictures")[0] == (f"{len(names)} of {len(val)}" if names else "")
    assert not names or names[0] in found


def test_comparing_pictures_tells_how_far_it_is_and_can_be_stopped(folder: Path) -> None:
    config, told = FolderData(root=str(folder)), list[tuple[str, int, int]]()
    write(folder, "val", "copy", noise(1))
    assert shared_pictures(config, lambda *values: told.append(values))
    assert {text for text, _, _ in told} == {"comparing pictures of train and val"} and told[-1][1] == told[-1][2]

    def stop(text: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shared_pictures(config, stop)


def test_pictures_of_one_length_are_not_read_whole_where_their_first_bytes_differ(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[str]()
    whole = supervision.file_digest
    monkeypatch.setattr(supervision, "file_digest", lambda path: (read.append(path.name), whole(path))[1])
    assert shared_pictures(FolderData(root=str(folder))) == "" and not read
    write(folder, "val", "copy", noise(1))
    assert shared_pictures(FolderData(root=str(folder))) and sorted(read) == ["copy.bmp", "train1.bmp"]


def test_drawn_data_share_no_files_and_raise_no_doubt() -> None:
    config = ShapesData(train=16, val=4)
    data = build_data(config, "train")
    assert shared_pictures(config) == "" and not list(doubts(config, count_labels(data, "train"), data.classes))


def test_check_of_the_data_says_what_a_run_would_end_with(folder: Path) -> None:
    for split in ("train", "val"):
        for mask in (folder / "labels" / split).iterdir():
            Image.fromarray(np.full((8, 8), 255, np.uint8)).save(mask)
    report = summarise(FolderData(root=str(folder)))
    assert [text.partition(",")[0] for text in report.problems] == ["every pixel of the train split is void (255)"]
    for mask in (folder / "labels" / "train").iterdir():
        Image.fromarray(np.r_[[[0, 1]], np.full((31, 2), 255)].astype(np.uint8).reshape(8, 8)).save(mask)
    report = summarise(FolderData(root=str(folder)))
    assert [text.partition(",")[0] for text in report.problems] == ["every pixel of the val split is void (255)"]
    assert "96.9 % of the pixels of the train split are void: nothing is learned from them." in report.warnings
