"""Any folder of images and index masks: ROOT/images/SPLIT/NAME.jpg|png, ROOT/labels/SPLIT/NAME.png, classes.txt."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from engine.config.schema import FolderData
from engine.data.names import Folders, is_hidden, listing, same, shown_names
from engine.data.pairs import (
    IMAGE_SUFFIXES,
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
from engine.data.values import MAX_CLASSES, VOID
from engine.errors import DataError
from engine.paths import expanded

MASK_SUFFIX = ".png"
SHOWN_FOLDERS = 5
"""How many folders a sentence names."""
REMEDY = "an 8-bit PNG of class indices, or set data.labels"


def class_names(config: FolderData) -> tuple[str, ...]:
    """Read the classes file: one name a line, in index order; blank lines at the end do not count.

    Raises:
        DataError: no such file, not text, empty, a blank line between names, a name twice, or too many.
    """
    path = _below(config, "classes", config.classes)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist: write one class name a line, in index order, or set data.classes."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable text file ({error}): write one class name a line.") from None
    names = [line.strip() for line in text.rstrip().splitlines()]
    if not names:
        raise DataError(f"{path} is empty: write one class name a line, in index order.")
    if len(names) > MAX_CLASSES:
        raise DataError(f"{path} has {len(names)} lines: masks of 8 bits hold at most {MAX_CLASSES} classes.")
    for number, name in enumerate(names, 1):
        if not name:
            raise DataError(f"{path} line {number} is blank: every line up to the last names one class.")
        if name in names[: number - 1]:
            raise DataError(f"{path} line {number} repeats {name!r}: give every class a name of its own.")
    return tuple(names)


def source(config: FolderData, split: str) -> Source:
    """What ``build_data`` decodes.

    Raises:
        DataError: a file or folder is missing, or an image's header cannot be read.
    """
    return source_of(list_split(config, split))


def list_split(config: FolderData, split: str) -> Listing:
    """Images of a split with their masks, by name; with max_train or max_val a choice fixed by data_seed.

    Whether the masks are there is not looked at.

    Raises:
        DataError: classes file, root or split folder missing, or no image. Two images of one name are among the
            listing's problems.
    """
    rule = label_rule(config)
    image_dir, label_dir = split_folders(config, split)
    everything, problems = list_images(image_dir)
    images = choose(everything, config.max_train if split == "train" else config.max_val, config.data_seed, split)
    pairs, unclear = _pairs(images, label_dir)
    stems = {same(path.stem) for path in everything}
    return Listing(
        root=expanded(config.root),
        split=split,
        pairs=pairs,
        rule=rule,
        scale=config.scale,
        remedy=REMEDY,
        extra=(_below(config, "classes", config.classes),),
        orphans=tuple(path for path in _masks(label_dir) if same(path.stem) not in stems),
        problems=(*problems, *unclear),
        remarks=lambda: _nested(image_dir),
    )


def _pairs(images: list[Path], label_dir: Path) -> tuple[list[Pair], list[str]]:
    """Each image with its mask, and a sentence for each whose mask is not the only one of its name."""
    folders, pairs, problems = Folders(), [], []
    for path in images:
        try:
            mask = folders.find(label_dir / f"{path.stem}{MASK_SUFFIX}")
        except DataError as error:
            problems.append(str(error))
        else:
            pairs.append(Pair(path.stem, path, mask))
    return pairs, problems


def _masks(label_dir: Path) -> list[Path]:
    found = (path for path in label_dir.iterdir() if path.suffix.lower() == MASK_SUFFIX and not is_hidden(path.name))
    return sorted(found)


def _nested(folder: Path) -> list[str]:
    """A sentence for folders that hold pictures beside those of a split, which are not searched."""
    names = _folders_of_pictures(folder)
    return [f"folders of pictures in {folder} are passed over: {_some(names)}."] if names else []


def _folders_of_pictures(folder: Path) -> list[str]:
    inside = (folder / name for name in listing(folder))
    return shown_names(path for path in inside if any(is_picture(path / name) for name in listing(path)))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_FOLDERS} more" if len(names) > SHOWN_FOLDERS else ""
    return ", ".join(names[:SHOWN_FOLDERS]) + more


def label_rule(config: FolderData) -> LabelRule:
    """Mask values are lines of the classes file, or void, or what ``label_map`` says.

    Raises:
        DataError: the classes file cannot be read, or the map names a class that it does not have.
    """
    classes = class_names(config)
    meaning = list(plain_meaning(len(classes), config.void_labels))
    for value, target in config.label_map.items():
        meaning[int(value)] = _meant(value, target, classes)

    def remedy(value: int) -> str:
        voids = ", ".join(str(v) for v in (*config.void_labels, value))
        counted = "; if 0 means no class and classes count from 1, write 255 for 0 and subtract 1 from the others"
        shifted = counted if value == len(classes) else ""
        void = f"if {value} means void, set data.void_labels to [{voids}]"
        return f"{void}{shifted}; else add the class to the classes file"

    allowed = f"there are {len(classes)} classes (0 to {len(classes) - 1})"
    named = frozenset(map(int, config.label_map))
    return LabelRule(classes, tuple(meaning), allowed, remedy, guess=not named, named=named)


def _meant(value: str, target: int | str, classes: Sequence[str]) -> int:
    """The class index, or 255."""
    if target == "void" and "void" in classes:
        raise DataError("data.label_map: 'void' is a class here: write its index, or 255 for no class.")
    if target in classes:
        return classes.index(str(target))
    if target in ("void", VOID):
        return VOID
    if isinstance(target, int) and target < len(classes):
        return target
    close = difflib.get_close_matches(str(target), classes, n=1)
    hint = f"did you mean {close[0]}?" if close else f"write an index from 0 to {len(classes) - 1}, a name, or void"
    raise DataError(f"data.label_map: value {value} is said to mean {str(target)!r}, which is no class: {hint}.")


def split_folders(config: FolderData, split: str) -> tuple[Path, Path]:
    """The image folder and the label folder of ``train`` or ``val``.

    Raises:
        DataError: root or one of them is missing.
    """
    name = config.train_split if split == "train" else config.val_split
    folders = []
    for key, template in (("images", config.images), ("labels", config.labels)):
        path = _below(config, key, template.replace("{split}", name))
        folders.append(require_folder(path, f"set data.{key} or data.{split}_split to what is there"))
    return folders[0], folders[1]


def list_images(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Picture files of a folder, by name; hidden files and other suffixes are passed over.

    Returns:
        the files, and a sentence for each that would share the mask of one before it, which is left out.

    Raises:
        DataError: none there.
    """
    found = sorted((path for path in folder.iterdir() if is_picture(path)), key=lambda path: path.name)
    if not found:
        inside = _folders_of_pictures(folder)
        beside = f" (folders in it are not searched: {_some(inside)})" if inside else ""
        endings = ", ".join(IMAGE_SUFFIXES[:3])
        raise DataError(f"{folder} holds no image{beside}: put {endings} files there or set data.images.")
    stems: dict[str, Path] = {}
    problems = []
    for path in found:
        first = stems.setdefault(same(path.stem), path)
        if first is not path:
            problems.append(f"{first} and {path.name} would share one mask: rename or remove one of them.")
    return list(stems.values()), tuple(problems)


def _below(config: FolderData, key: str, relative: str) -> Path:
    holds = "images, labels and the classes file"
    return below_root(existing_root(config.root, holds), f"data.{key}", relative)
