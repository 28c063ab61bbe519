"""Cityscapes with fine annotations, in its official layout: 19 classes for training (PAPER 2.1, 2.5)."""

from __future__ import annotations

from pathlib import Path

from engine.config.schema import CityscapesData
from engine.data.names import Folders, is_passed_over, same
from engine.data.pairs import (
    LabelRule,
    Listing,
    Pair,
    below_root,
    choose,
    existing_root,
    is_picture,
    plain_meaning,
    require_folder,
)
from engine.data.source import Source, source_of
from engine.data.values import VOID
from engine.errors import DataError

TRAIN_IDS = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""labelId of each class that is trained, in the order of trainIds 0 to 18, as in the official label table."""
CLASSES = tuple(TRAIN_IDS.values())
LAST_LABEL_ID = 33
HOLDS = "leftImg8bit and gtFine"
IMAGE_END = "_leftImg8bit"


def class_names(config: CityscapesData) -> tuple[str, ...]:
    """The 19 names in the order of trainIds."""
    return CLASSES


def source(config: CityscapesData, split: str) -> Source:
    """What ``build_data`` decodes.

    Raises:
        DataError: a file or folder is missing, or an image's header cannot be read.
    """
    return source_of(list_split(config, split))


def label_rule(config: CityscapesData) -> LabelRule:
    """labelIds by the official table, those without trainId void; or trainIds as they are."""
    if config.masks == "labelTrainIds":
        return LabelRule(
            CLASSES,
            plain_meaning(len(CLASSES), (VOID,)),
            f"labelTrainIds are 0 to {len(CLASSES) - 1} and {VOID} = void",
            lambda _value: "if the file holds labelIds, set data.masks to labelIds; else replace it",
        )
    order = list(TRAIN_IDS)
    meaning = [order.index(value) if value in TRAIN_IDS else VOID for value in range(LAST_LABEL_ID + 1)]
    meaning += [-1] * (VOID - len(meaning)) + [VOID]
    return LabelRule(
        CLASSES,
        tuple(meaning),
        f"labelIds are 0 to {LAST_LABEL_ID}",
        lambda _value: "replace the file by the official one",
    )


def list_split(config: CityscapesData, split: str) -> Listing:
    """Images of all cities with their masks, by path; with max_train or max_val a choice fixed by data_seed.

    Whether the masks are there is not looked at.

    Raises:
        DataError: root or a folder missing, or no image.
    """
    root = existing_root(config.root, HOLDS)
    name = config.train_split if split == "train" else config.val_split
    image_dir, mask_dir = (_split_folder(root, part, split, name) for part in ("leftImg8bit", "gtFine"))
    found = (path for path in image_dir.glob("*/*") if is_picture(path) and path.stem.endswith(IMAGE_END))
    images = sorted(path for path in found if not is_passed_over(path, image_dir))
    if not images:
        raise DataError(f"{image_dir} holds no CITY/NAME{IMAGE_END}.png: set data.{split}_split to a split that does.")
    pairs, problems = _pairs(images, mask_dir, config.masks)
    partners = {pair.mask for pair in pairs}
    limit = config.max_train if split == "train" else config.max_val
    return Listing(
        root=root,
        split=split,
        pairs=choose(pairs, limit, config.data_seed, split),
        rule=label_rule(config),
        scale=config.scale,
        remedy=_remedy(pairs, config.masks),
        orphans=tuple(path for path in _masks(mask_dir, config.masks) if path not in partners),
        problems=problems,
    )


def _split_folder(root: Path, part: str, split: str, name: str) -> Path:
    require_folder(root / part, f"set data.root to the folder that holds {HOLDS}")
    path = below_root(root / part, f"data.{split}_split", name)
    return require_folder(path, f"set data.{split}_split to what is there")


def _pairs(images: list[Path], mask_dir: Path, masks: str) -> tuple[list[Pair], tuple[str, ...]]:
    """Each image with its mask, and a sentence for each that would share one, or whose mask is not the only one."""
    folders, problems = Folders(), []
    pairs: dict[tuple[str, str], Pair] = {}
    for image in images:
        name = image.stem.removesuffix(IMAGE_END)
        try:
            city = folders.find(mask_dir / image.parent.name)
            pair = Pair(name, image, folders.find(city / f"{name}_gtFine_{masks}.png"))
        except DataError as error:
            problems.append(str(error))
            continue
        first = pairs.setdefault((same(image.parent.name), same(name)), pair)
        if first is not pair:
            problems.append(f"{first.image} and {image.name} would share one mask: rename or remove one of them.")
    return list(pairs.values()), tuple(problems)


def _masks(mask_dir: Path, masks: str) -> list[Path]:
    found = (path for path in mask_dir.glob("*/*") if path.suffix.lower() == ".png")
    named = (path for path in found if path.stem.endswith(f"_gtFine_{masks}"))
    return sorted(path for path in named if not is_passed_over(path, mask_dir))


def _remedy(pairs: list[Pair], masks: str) -> str:
    """What to write if a mask is missing; often the other sort of masks is there."""
    other = "labelIds" if masks == "labelTrainIds" else "labelTrainIds"
    there = any(pair.mask.with_name(f"{pair.name}_gtFine_{other}.png").is_file() for pair in pairs[:3])
    return f"or set data.masks to {other}, which are there" if there else "as the official archive gtFine holds it"
