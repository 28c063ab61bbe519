"""PASCAL VOC 2012, alone or with the masks of SBD (SegmentationClassAug): 20 classes and background (PAPER 2.1)."""

from __future__ import annotations

from pathlib import Path

from engine.config.schema import VocData
from engine.data.names import Folders, is_passed_over, same, shown_names
from engine.data.pairs import (
    LabelRule,
    Listing,
    Pair,
    below_root,
    choose,
    existing_root,
    plain_meaning,
    require_folder,
)
from engine.data.source import Source, source_of
from engine.data.values import VOID
from engine.errors import DataError

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""Names in index order, as in the development kit."""
HOLDS = "JPEGImages, SegmentationClass and ImageSets (VOCdevkit/VOC2012)"
RULE = LabelRule(
    CLASSES,
    plain_meaning(len(CLASSES), (VOID,)),
    f"VOC masks hold 0 to {len(CLASSES) - 1} and {VOID} = void",
    lambda _value: "write the palette PNG of VOC or SBD, whose values are class indices",
)


def class_names(config: VocData) -> tuple[str, ...]:
    """The 21 names, background first."""
    return CLASSES


def source(config: VocData, split: str) -> Source:
    """What ``build_data`` decodes.

    Raises:
        DataError: a file or folder is missing, or an image's header cannot be read.
    """
    return source_of(list_split(config, split))


def list_split(config: VocData, split: str) -> Listing:
    """The pairs that the split's list names, in its order; with max_train or max_val a choice fixed by data_seed.

    A line is a name (``2007_000032``), or the paths of image and mask below root, as the lists of SBD have them
    (``/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png``). Whether the files are there is not
    looked at.

    Raises:
        DataError: root, list or folder missing. A line that is neither, or an image that is listed twice, is among
            the listing's problems.
    """
    root = _root(config)
    key, relative = ("train_list", config.train_list) if split == "train" else ("val_list", config.val_list)
    path = below_root(root, f"data.{key}", relative)
    masks = ("masks", config.masks) if split == "train" else ("val_masks", config.val_masks)
    pairs, problems = _pairs(path, key, root, masks)
    if any(pair.mask.parent == root / masks[1] for pair in pairs):
        require_folder(below_root(root, f"data.{masks[0]}", masks[1]), f"set data.{masks[0]} to what is there")
    limit = config.max_train if split == "train" else config.max_val
    return Listing(
        root=root,
        split=split,
        pairs=choose(pairs, limit, config.data_seed, split),
        rule=RULE,
        scale=config.scale,
        remedy=f"a palette PNG of class indices, or set data.{masks[0]} or data.{key}",
        extra=(path,),
        problems=problems,
    )


def _root(config: VocData) -> Path:
    root = existing_root(config.root, HOLDS)
    for inner in (root / "VOC2012", root / "VOCdevkit/VOC2012"):
        if not (root / "JPEGImages").is_dir() and (inner / "JPEGImages").is_dir():
            raise DataError(f"data.root {root} holds no JPEGImages: set data.root to {inner}.")
    require_folder(root / "JPEGImages", f"set data.root to the folder that holds {HOLDS}")
    return root


def _lines(path: Path, key: str) -> list[tuple[int, str]]:
    """Lines of a list that are not blank, with their numbers."""
    try:
        # Names of files are bytes, and need be no UTF-8.
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        if "\0" in text:
            raise UnicodeError("it holds zero bytes")
    except FileNotFoundError:
        there = shown_names(path.parent.glob("*.txt"))[:8] if path.parent.is_dir() else []
        beside = f" (beside it: {', '.join(there)})" if there else ""
        raise DataError(
            f"{path} does not exist{beside}: set data.{key} to a list of images, one name a line; "
            "train_aug.txt is no part of VOC, it comes with the masks of SBD."
        ) from None
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path} is no readable text file ({error}): write one image name a line.") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty: write one image name a line.")
    return lines


def _pairs(path: Path, key: str, root: Path, masks: tuple[str, str]) -> tuple[list[Pair], tuple[str, ...]]:
    """Pairs of all lines of a list that are right, each image once, and a sentence for each line that is wrong.

    Raises:
        DataError: it names hidden files alone.
    """
    pairs: dict[str, tuple[int, Pair]] = {}
    problems = []
    folders = Folders()
    for number, line in _lines(path, key):
        try:
            pair = _pair(line, f"{path} line {number}", root, masks)
            if is_passed_over(pair.image, root):
                continue
            pair = Pair(pair.name, folders.find(pair.image), folders.find(pair.mask))
        except DataError as error:
            problems.append(str(error))
            continue
        first, _ = pairs.setdefault(same(pair.name), (number, pair))
        if first != number:
            problems.append(
                f"{path} names {pair.name} twice (lines {first} and {number}): leave each image there once."
            )
    if not pairs and not problems:
        raise DataError(f"{path} names hidden files alone, which are passed over: write one image name a line.")
    return [pair for _, pair in pairs.values()], tuple(dict.fromkeys(problems))


def _pair(line: str, where: str, root: Path, masks: tuple[str, str]) -> Pair:
    parts = line.split()
    if len(parts) == 1 and "/" not in line:
        mask = below_root(root, f"data.{masks[0]}", masks[1]) / f"{line}.png"
        return Pair(line, below_root(root, where, f"JPEGImages/{line}.jpg"), mask)
    if len(parts) == 2 and all(Path(part).suffix for part in parts):
        image, mask = (below_root(root, where, part.lstrip("/")) for part in parts)
        return Pair(image.stem, image, mask)
    raise DataError(f"{where} is {line!r}: write the name of an image, or the paths of image and mask below data.root.")
