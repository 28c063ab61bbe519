"""One split that is about to be decoded: what is in it, how large it will be, and how each image is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from PIL import __version__ as pillow_version
from PIL import features

from engine.data.digests import digest_files
from engine.data.pairs import Listing, load_pair, read_size, require_files, scaled_size
from engine.data.pictures import Bytes
from engine.data.threads import in_threads
from engine.data.values import VOID, Progress
from engine.own_code import sources

DECODERS = ("masks.py", "pairs.py", "pictures.py", "source.py", "shapes.py")
"""Modules that decide what pixels and labels are."""


@dataclass(frozen=True)
class Source:
    """What ``build_data`` decodes.

    Attributes:
        split: train or val.
        what: the split in words, for sentences.
        doing: what reading it is called in progress lines.
        advice: what to lower if it is too large, continuing "raise the budget, ...".
        names: of the labelled images.
        classes: names in index order.
        sizes: (height, width) of every labelled image, as decoded.
        read: image ``i`` as uint8 (h, w, 3) and its labels as uint8 (h, w); may be called from several threads.
        digest: hexadecimal, of everything that decides what ``read`` returns except the code; reports progress.
        unlabelled: number of further images without labels, all of the largest size; ``read`` numbers them last.
    """

    split: str
    what: str
    doing: str
    advice: str
    names: list[str]
    classes: tuple[str, ...]
    sizes: list[tuple[int, int]]
    read: Callable[[int], tuple[Bytes, Bytes]]
    digest: Callable[[Progress | None], str]
    unlabelled: int = 0

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """Shape of all images together, unlabelled ones last: (N + M, 3, H, W)."""
        height, width = max(h for h, _ in self.sizes), max(w for _, w in self.sizes)
        return len(self.names) + self.unlabelled, 3, height, width

    @property
    def label_shape(self) -> tuple[int, int, int]:
        """Shape of the labels: (N, H, W)."""
        return len(self.names), *self.image_shape[2:]

    @property
    def nbytes(self) -> int:
        """Bytes of all images and labels."""
        images, labels = self.image_shape, self.label_shape
        return images[0] * 3 * images[2] * images[3] + labels[0] * labels[1] * labels[2]


def source_of(listing: Listing) -> Source:
    """Read the sizes of all images of a listing; masks have to be there.

    Raises:
        DataError: the listing has a problem, a file is missing, or an image's header cannot be read.
    """
    listing.require_sound()
    pairs, rule, scale = listing.pairs, listing.rule, listing.scale
    require_files(pairs, listing.remedy)
    sizes = [scaled_size(read_size(pair.image), scale) for pair in pairs]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)

    def digest(progress: Progress | None) -> str:
        files = digest_files(listing.root, [path for pair in pairs for path in (pair.image, pair.mask)], progress)
        return hashlib.sha256(json.dumps([files, rule.meaning, rule.classes, scale]).encode()).hexdigest()

    return Source(
        split=listing.split,
        what=f"{listing.root}, split {listing.split} ({len(pairs)} images of up to {width}x{height})",
        doing=f"decoding {listing.split} images",
        advice=f"or set data.max_{listing.split} or a smaller data.scale",
        names=[pair.name for pair in pairs],
        classes=rule.classes,
        sizes=sizes,
        read=lambda index: load_pair(pairs[index], rule, scale),
        digest=digest,
    )


def decode(source: Source, images: Bytes, labels: Bytes, progress: Progress | None = None) -> None:
    """Fill ``images`` (of zeros) and ``labels``, in threads.

    Raises:
        DataError: a file is unreadable or does not fit its partner.
    """

    def one(index: int) -> None:
        # NumPy and not torch writes here: torch would start threads of its own in each of ours.
        picture, mask = source.read(index)
        height, width = mask.shape
        images[index, :, :height, :width] = picture.transpose(2, 0, 1)
        if index < len(labels):
            labels[index] = VOID
            labels[index, :height, :width] = mask

    in_threads(one, len(images), source.doing, progress)


def decoder_digest() -> str:
    """Of the code that decodes and of its JPEG decoder: another version may give other pixels."""
    files = sources()
    parts = [files[f"data/{name}"] for name in DECODERS]
    parts += [pillow_version.encode(), str(features.version("jpg")).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
