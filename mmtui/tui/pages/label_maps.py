"""Image, truth and prediction of one validation image as read from a run's folder, and how well they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mmtui.domain.text import printable
from mmtui.services.plain_files import named_file

if TYPE_CHECKING:
    from PIL.Image import Image

RGB = tuple[int, int, int]
LARGEST_SIDE = 8192
CLASSES = 64
"""Colours of so many classes are the same on every image of a run, whichever occur in it."""
VOID = 255
"""Index of pixels that no class is known of."""


@dataclass(frozen=True)
class Scores:
    """How a prediction of one image compares with its truth; pixels that are void in the truth do not count.

    Attributes:
        pixels: those that count.
        wrong: those of them whose class is another one.
        void: those that do not count.
        ious: 0-1, of every class in truth or prediction.
    """

    pixels: int
    wrong: int
    void: int
    ious: Mapping[int, float]

    @property
    def miou(self) -> float | None:
        """Mean of ``ious``; None where no pixel counts."""
        return sum(self.ious.values()) / len(self.ious) if self.ious else None


@dataclass(frozen=True, eq=False)
class Triple:
    """What could be read; where a picture could not, the words that say why.

    Attributes:
        key: tells it from other triples, and from what the same files held before.
        image: mode RGB.
        truth, prediction: class indices, mode L.
        colors: of every index that occurs, and of the first ones of the palette.
        named: whether the indices are those of the run's classes; not so where the files hold colours alone.
        counts: pixels in truth and prediction together, by index.
        scores: None where one is missing or their sizes differ.
    """

    key: str
    image: Image | str
    truth: Image | str
    prediction: Image | str
    colors: Mapping[int, RGB] = field(default_factory=dict)
    named: bool = True
    counts: Mapping[int, int] = field(default_factory=dict)
    scores: Scores | None = None


def read_triple(root: Path, names: Sequence[str]) -> Triple:
    """The three pictures of an event; none that lies outside the run's folder."""
    files, stamps = [], []
    for name in names:
        file = named_file(root, name)
        files.append(str(file) if file is not None else "")
        stamps.append(file.stat().st_mtime_ns if file is not None else 0)
    return _read(tuple(files), tuple(stamps))


@lru_cache(maxsize=4)
def _read(files: tuple[str, ...], stamps: tuple[int, ...]) -> Triple:
    photo, truth, prediction = (_opened(file) for file in files)
    image = photo if isinstance(photo, str) else photo.convert("RGB")
    maps = [one for one in (truth, prediction) if not isinstance(one, str)]
    named = all(one.mode in ("P", "L", "1") for one in maps)
    colors: dict[int, RGB] = {}
    if named:
        for one in maps:
            colors |= _palette(one)
        truth = truth if isinstance(truth, str) else _indices(truth)
        prediction = prediction if isinstance(prediction, str) else _indices(prediction)
    else:
        truth, prediction = _by_color(truth, prediction, colors)
    counts: dict[int, int] = {}
    for label_map in (truth, prediction):
        if not isinstance(label_map, str):
            for index, count in enumerate(label_map.histogram()):
                counts[index] = counts.get(index, 0) + count
    found = {index: count for index, count in sorted(counts.items()) if count}
    of_classes = {index: color for index, color in colors.items() if index < CLASSES}
    known = of_classes | {index: colors.get(index, _voc_color(index)) for index in found}
    scores = None
    if not isinstance(truth, str) and not isinstance(prediction, str) and truth.size == prediction.size:
        scores = scores_of(truth, prediction)
    return Triple(repr((files, stamps)), image, truth, prediction, known, named, found, scores)


def _opened(file: str) -> Image | str:
    """A picture with its pixels, or why there is none."""
    from PIL import Image, UnidentifiedImageError

    if not file:
        return "missing"
    try:
        with Image.open(file) as picture:
            if max(picture.size) > LARGEST_SIDE:
                return f"too large: {picture.width} x {picture.height}"
            picture.load()
            return picture.copy()
    except Exception as error:  # of a damaged header Pillow raises nearly anything, and the file may be a stranger's
        words = "no picture" if isinstance(error, UnidentifiedImageError) else printable(str(error))
        return f"cannot be read: {words}"


def _indices(picture: Image) -> Image:
    """Pixel values as they are, whatever the palette says."""
    from PIL import Image

    plain = picture.convert("L") if picture.mode == "1" else picture
    return Image.frombytes("L", plain.size, plain.tobytes())


def _palette(picture: Image) -> dict[int, RGB]:
    flat = (picture.getpalette("RGB") or []) if picture.mode == "P" else []
    return {start // 3: (flat[start], flat[start + 1], flat[start + 2]) for start in range(0, len(flat) - 2, 3)}


def _by_color(truth: Image | str, prediction: Image | str, colors: dict[int, RGB]) -> tuple[Image | str, Image | str]:
    """Indices for files that hold colours: the same colour has the same one in both."""
    from PIL.Image import frombytes

    found: list[Image | str] = []
    numbers: dict[bytes, int] = {}
    for one in (truth, prediction):
        if isinstance(one, str):
            found.append(one)
            continue
        data = one.convert("RGB").tobytes()
        pixels = [data[start : start + 3] for start in range(0, len(data), 3)]
        for pixel in sorted(set(pixels)):
            numbers.setdefault(pixel, len(numbers))
        if len(numbers) >= VOID - 1:
            found.append("no label map: too many colours")
            continue
        found.append(frombytes("L", one.size, bytes([numbers[pixel] for pixel in pixels])))
    colors |= {number: (pixel[0], pixel[1], pixel[2]) for pixel, number in numbers.items()}
    return found[0], found[1]


def scores_of(truth: Image, prediction: Image) -> Scores:
    """From the confusion of two label maps of one size (mode L)."""
    total = truth.histogram()
    rows: dict[int, list[int]] = {}
    for index in range(VOID):
        if total[index]:
            mask = truth.point([0] * index + [255] + [0] * (255 - index))
            rows[index] = prediction.histogram(mask)
    pixels = sum(total[:VOID])
    right = sum(row[index] for index, row in rows.items())
    predicted = [sum(row[index] for row in rows.values()) for index in range(256)]
    ious = {}
    for index in range(256):
        own = rows[index][index] if index in rows else 0
        union = (total[index] if index in rows else 0) + predicted[index] - own
        if union and index != VOID:
            ious[index] = own / union
    return Scores(pixels, pixels - right, total[VOID], ious)


def _voc_color(index: int) -> RGB:
    """PASCAL VOC's colour of an index, for maps without a palette."""
    color = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            color[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return color[0], color[1], color[2]
