"""Whether labels can teach and measure anything: counted before the first stage trains, and said loudly if not.

An mIoU of masks that hold one class beside void is 100, a loss of void alone is 0: both look like a success. What is
certain ends the run before it trains; what is likely marks it (``warning`` events about supervision).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config.schema import DataConfig, FolderData
from engine.data.digests import file_digest
from engine.data.listings import LISTINGS
from engine.data.threads import in_threads
from engine.data.values import Progress
from engine.errors import DataError

SHOWN = 5
"""How many names a sentence holds."""
FIRST_BYTES = 4096
"""By which pictures of one length are compared before they are read whole."""


@dataclass(frozen=True)
class Labels:
    """What the label maps of one split hold.

    Attributes:
        split: train or val.
        pixels: number of pixels of each class, in index order.
        void: number of void pixels; what lies beside images does not count.
        looked_at: number of images counted.
        images: number of images.
    """

    split: str
    pixels: tuple[int, ...]
    void: int
    looked_at: int
    images: int

    @property
    def whole(self) -> bool:
        """Whether every image was counted."""
        return self.looked_at == self.images

    @property
    def labelled(self) -> int:
        """Number of pixels that have a class."""
        return sum(self.pixels)

    @property
    def present(self) -> list[int]:
        """Classes that occur."""
        return [index for index, count in enumerate(self.pixels) if count]


def refuse(config: DataConfig, labels: Labels, classes: Sequence[str]) -> None:
    """Nothing can come of labels without two classes to tell apart, or of a validation without any label.

    Raises:
        DataError: it is so in every image of the split; says what to write.
    """
    text = _hopeless(labels, classes)
    if text and not _is_choice(config, labels.split):
        raise DataError(f"{text}; {_cure(config, labels, classes)}.")


def _is_choice(config: DataConfig, split: str) -> bool:
    """Whether some images speak for the split, as in a smoke test: others may hold what these lack."""
    return getattr(config, f"max_{split}", None) is not None


def _hopeless(labels: Labels, classes: Sequence[str]) -> str:
    """Why nothing can come of the labels; "" if something may."""
    if not labels.whole or not labels.images:
        return ""
    if not labels.labelled:
        what = "nothing would be learned" if labels.split == "train" else "nothing would be measured"
        return f"every pixel of the {labels.split} split is void (255), {what}"
    if labels.split == "train" and len(labels.present) < 2:
        only = f"{labels.present[0]} {classes[labels.present[0]]}"
        text = f"every labelled pixel of the train split is of one class, {only}{_beside(labels)}"
        return f"{text}: there is nothing to tell it from"
    return ""


def _cure(config: DataConfig, labels: Labels, classes: Sequence[str]) -> str:
    if len(classes) < 2:
        return f"name at least two classes, not {len(classes)}"
    cure = f"write masks of class indices 0 to {len(classes) - 1} with 255 for void"
    if isinstance(config, FolderData):
        binary = " (masks of 0 and 255: 'data.label_map={255: 1}')"
        cure += ", or say what their values mean with data.label_map"
        cure += binary if len(classes) == 2 and labels.void and not config.label_map else ""
    return f"{cure}; look with: python -m engine check-data RECIPE"


def _beside(labels: Labels) -> str:
    return f" ({_percent(labels)} % of all pixels are void)" if labels.void else ""


def _percent(labels: Labels) -> str:
    return f"{100 * labels.void / max(labels.void + labels.labelled, 1):.1f}"


def doubts(config: DataConfig, labels: Labels, classes: Sequence[str]) -> Iterator[str]:
    """Sentences about what makes learning or the score doubtful, though something may come of it."""
    text = _hopeless(labels, classes)
    if text and _is_choice(config, labels.split):
        yield f"{text} (of the images that data.max_{labels.split} chooses)"
        return
    where = f"the {labels.split} split"
    if not labels.whole:
        where += f" ({labels.looked_at} of {labels.images} images looked at)"
    absent = [f"{index} {classes[index]}" for index, count in enumerate(labels.pixels) if not count]
    if absent and labels.split == "train":
        what = "they cannot" if len(absent) > 1 else "it cannot"
        yield f"no pixel of {where} is of class {_some(absent)}: {what} be learned"
    yield from one_class(labels, classes, where)
    yield from mostly_void(labels, where)


def one_class(labels: Labels, classes: Sequence[str], where: str = "the val split") -> Iterator[str]:
    """That a val split measures one class alone."""
    if labels.split == "val" and len(labels.present) == 1:
        only = labels.present[0]
        yield f"every labelled pixel of {where} is of class {only} {classes[only]}: the score measures one class"


def mostly_void(labels: Labels, where: str) -> Iterator[str]:
    """That more pixels are void than are not; ``where``: the split, in words."""
    if labels.void > labels.labelled:
        what = "the score knows nothing of them" if labels.split == "val" else "nothing is learned from them"
        yield f"{_percent(labels)} % of the pixels of {where} are void: {what}"


def shared_pictures(config: DataConfig, progress: Progress | None = None) -> str:
    """That pictures of the val split are in the train split too, by their bytes, in a sentence; "" if none is.

    Only files of one length whose first bytes are alike are read whole: of splits that share nothing hardly any.

    Args:
        progress: told how far it is; may raise to stop it.
    """
    if config.kind not in LISTINGS:
        return ""
    train, val = ([pair.image for pair in LISTINGS[config.kind](config, split).pairs] for split in ("train", "val"))
    found, count = val, len(val)
    for key in (_size, _first_bytes, _digest):
        train, found = _alike(train, found, key, progress)
    if not found:
        return ""
    text = f"{len(found)} of {count} pictures of the val split are in the train split too"
    return f"{text}, the score is too good: {_some([path.name for path in found])}"


def _alike(
    train: Sequence[Path], val: Sequence[Path], key: Callable[[Path], Hashable], progress: Progress | None
) -> tuple[list[Path], list[Path]]:
    """Those of each split whose key one of the other has, too; a key that is nothing is nobody's."""
    paths = [*train, *val]
    keys = in_threads(lambda index: key(paths[index]), len(paths), "comparing pictures of train and val", progress)
    common = {one for one in {*keys[: len(train)]} & {*keys[len(train) :]} if one}
    kept = [(path, number < len(train)) for number, path in enumerate(paths) if keys[number] in common]
    return [path for path, of_train in kept if of_train], [path for path, of_train in kept if not of_train]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # it is missed where it is read


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FIRST_BYTES)
    except OSError:
        return b""


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except DataError:
        return ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
