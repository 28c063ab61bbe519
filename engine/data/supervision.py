"""Whether labels can teach and measure anything: counted before the first stage trains, and said loudly if not.

An mIoU of masks that hold one class beside void is 100, a loss of void alone is 0: both look like a success. What is
certain ends the run before it trains; what is likely marks it (``warning`` events about supervision).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.config.schema import DataConfig
from engine.data.dataset import SegmentationData
from engine.data.registry import LISTINGS
from engine.errors import DataError

MOST_PIXELS = 2**31
"""More label pixels than these are not counted one by one: some of the images speak for all of them."""
SHOWN = 5
"""How many names a sentence holds."""
_CHUNK = 2**24
_CURE = (
    "write masks of class indices 0 to {last} with 255 for void, or say what their values mean (binary masks of 0 and"
    " 255: set 'data.label_map={{255: 1}}'); look with: mmtui check-data RECIPE"
)


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


def count_labels(data: SegmentationData, split: str) -> Labels:
    """Count a split; of one of more than ``MOST_PIXELS`` images at equal distances.

    Args:
        data: decoded; may be mapped from a file or lie on a GPU.
        split: its name, for sentences.
    """
    area = max(data.labels[0].numel(), 1) if len(data) else 1
    looked_at = min(len(data), max(MOST_PIXELS // area, 1))
    chosen = torch.arange(looked_at) * len(data) // max(looked_at, 1)
    counts = torch.zeros(256, dtype=torch.int64)
    for part in chosen.split(max(_CHUNK // area, 1)):
        counts += _histogram(data.labels, part)
    own = int(data.sizes.cpu()[chosen].prod(dim=1).sum())
    pixels = tuple(counts[: data.num_classes].tolist())
    return Labels(split, pixels, own - sum(pixels), looked_at, len(data))


def _histogram(labels: Tensor, indices: Tensor) -> Tensor:
    part = labels[int(indices[0]) : int(indices[-1]) + 1]
    if len(part) != len(indices):
        part = labels[indices.to(labels.device)]
    return torch.bincount(part.reshape(-1), minlength=256).cpu()


def refuse(labels: Labels, classes: Sequence[str]) -> None:
    """Nothing can come of labels without two classes to tell apart, or of a validation without any label.

    Raises:
        DataError: it is so in every image of the split; says what to write.
    """
    if not labels.whole or not labels.images:
        return
    cure = _CURE.format(last=max(len(classes) - 1, 1))
    if not labels.labelled:
        what = "nothing would be learned" if labels.split == "train" else "nothing would be measured"
        raise DataError(f"every pixel of the {labels.split} split is void (255), {what}: {cure}.")
    if labels.split == "train" and len(labels.present) < 2:
        only = labels.present[0]
        raise DataError(
            f"every labelled pixel of the train split is of one class, {only} {classes[only]}"
            f"{_beside(labels)}: there is nothing to tell it from; {cure}."
        )


def _beside(labels: Labels) -> str:
    return f" ({_percent(labels)} % of all pixels are void)" if labels.void else ""


def _percent(labels: Labels) -> str:
    return f"{100 * labels.void / max(labels.void + labels.labelled, 1):.1f}"


def doubts(labels: Labels, classes: Sequence[str]) -> Iterator[str]:
    """Sentences about what makes learning or the score doubtful, though something may come of it."""
    where = f"the {labels.split} split"
    if not labels.whole:
        where += f" ({labels.looked_at} of {labels.images} images looked at)"
    absent = [f"{index} {classes[index]}" for index, count in enumerate(labels.pixels) if not count]
    if absent and labels.split == "train":
        what = "they cannot" if len(absent) > 1 else "it cannot"
        yield f"no pixel of {where} is of class {_some(absent)}: {what} be learned"
    if labels.split == "val" and len(labels.present) == 1:
        only = labels.present[0]
        yield f"every labelled pixel of {where} is of class {only} {classes[only]}: the score measures one class"
    yield from mostly_void(labels, where)


def mostly_void(labels: Labels, where: str) -> Iterator[str]:
    """That more pixels are void than are not; ``where``: the split, in words."""
    if labels.void > labels.labelled:
        what = "the score knows nothing of them" if labels.split == "val" else "nothing is learned from them"
        yield f"{_percent(labels)} % of the pixels of {where} are void: {what}"


def shared_pictures(config: DataConfig) -> str:
    """That pictures of the val split are in the train split too, by their bytes, in a sentence; "" if none is.

    Only files of one length are read: of splits that share nothing hardly any.
    """
    if config.kind not in LISTINGS:
        return ""
    train, val = ([pair.image for pair in LISTINGS[config.kind](config, split).pairs] for split in ("train", "val"))
    sizes = defaultdict[int, list[Path]](list)
    for path in train:
        sizes[_size(path)].append(path)
    found, digests = list[Path](), dict[int, set[bytes]]()
    for path in val:
        size = _size(path)
        if size > 0 and size in sizes:
            if size not in digests:
                digests[size] = {_digest(other) for other in sizes[size]}
            if _digest(path) in digests[size]:
                found.append(path)
    if not found:
        return ""
    text = f"{len(found)} of {len(val)} pictures of the val split are in the train split too"
    return f"{text}, the score is too good: {_some([path.name for path in found])}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # it is missed where it is read


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
