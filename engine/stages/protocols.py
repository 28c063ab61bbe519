"""Evaluation protocols: what a network sees of an image, and how its scores become a class of every pixel (PAPER 2.5).

- ``plain``: the image as it is, alone; scores of every pixel, argmax.
- ``fit`` (VOC): the image is resized to fit a square and centred in it; the rest is what lies outside of images in
  training, too (``engine.data.pipeline.OUTSIDE``).
  Scores are taken on a grid of step ``stride`` and the argmax on that grid: at side 512 and stride 2 on 256 x 256, the
  release's ``hyper_downsample_rate 2``. The class map is cut to the grid points on the picture and resized to the
  image's own size by nearest neighbour.
- ``windows`` (Cityscapes): overlapping squares; softmax on their grid, bilinear to all their pixels, summed, argmax.

Views (scales, mirrored) and the networks of an ensemble are joined by adding class probabilities. No random number is
drawn.

What lies beside an image in its batch never changes its answer: a network sees images cut to their own size, those of
one size together. What remains is rounding: libraries may add up in another order for another number of images, which
changes scores in their last digits, and so the class of a pixel whose two best scores are as good as equal.

Shapes: B images, C input channels, K classes, H x W the padded size of a batch, h x w an image's own size. Resizing
is bilinear with half-pixel centres and without antialiasing, as OpenCV's INTER_LINEAR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.config.checks import SMALLEST_SIDE
from engine.config.evaluation import EvaluateConfig
from engine.config.schema import InputName, ModelConfig
from engine.data.pipeline import OUTSIDE, normalise
from engine.errors import RecipeError
from engine.models.hypercolumn import magnify

Size = tuple[int, int]
"""Height and width, pixels."""


class Segmenter(Protocol):
    """A segmentation network in evaluation mode."""

    def dense_logits(self, x: Tensor, stride: int = 1) -> Tensor:
        """Class scores (B, K, H, W) of an input (B, C, H, W), computed at every ``stride``-th pixel."""


@dataclass(frozen=True)
class Member:
    """A network of an ensemble and the input it was trained on.

    Attributes:
        smallest: least side of an input that it can compute, pixels. Smaller ones are surrounded by what lies outside
            of images.
    """

    model: Segmenter
    input: InputName
    smallest: int = 1

    @classmethod
    def of(cls, model: Segmenter, config: ModelConfig) -> Member:
        """The network of a recipe's model section."""
        return cls(model, config.input, SMALLEST_SIDE.get(config.backbone, 1))


def check_protocol(config: EvaluateConfig) -> None:
    """Raises RecipeError if the settings of the protocol contradict each other."""
    if config.protocol == "windows" and config.window_stride > config.side:
        raise RecipeError(
            f"evaluate.window_stride {config.window_stride} would leave pixels between windows of evaluate.side"
            f" {config.side} without a class: write a window_stride of at most {config.side}"
        )
    for scale in config.scales:
        if scale <= 0:
            raise RecipeError(f"evaluate.scales holds {scale:g}: write resize factors above 0, such as 0.75, 1.0, 1.25")


Watch = Callable[[Sequence[int], Tensor], None]
"""Takes which images of a batch were computed, and their class scores (B, K, h, w)."""
_Add = Callable[[Tensor | None, Member, Tensor, Size], Tensor]
"""Adds the probabilities of one network's views of an image to a sum."""


class Predictor:
    """Classes of images by one protocol.

    Args:
        members: the networks, in evaluation mode; several are an ensemble.
        config: protocol, stride, side, window_stride, scales and flip; ``batch_size`` is how many windows at once.
        autocast: precision of the forward passes.

    Raises:
        RecipeError: the settings contradict each other.
    """

    def __init__(
        self,
        members: Sequence[Member],
        config: EvaluateConfig,
        autocast: Callable[[], AbstractContextManager[object]] = lambda: torch.autocast("cpu", enabled=False),
    ) -> None:
        check_protocol(config)
        self.members, self.config, self._autocast = tuple(members), config, autocast
        self._mirrorings = (False, True) if config.flip else (False,)
        self._one_view = len(self.members) == 1 and config.scales == (1.0,) and not config.flip

    @torch.inference_mode()
    def classes(self, images: Tensor, sizes: Sequence[Size], watch: Watch | None = None) -> Tensor:
        """Class of every pixel, int64 (B, H, W); where no image is, what is there means nothing.

        Args:
            images: uint8 (B, 3, H, W), each in its upper left corner.
            sizes: each image's own size.
            watch: is shown the scores; of one network and one view of the protocol plain alone.
        """
        if self.config.protocol == "plain" and self._one_view:
            return self._plain(images, sizes, watch)
        assert watch is None, "the recipe was checked"
        if self.config.protocol == "fit":
            found = self._fitted(images, sizes)
        else:
            add = self._add_views if self.config.protocol == "plain" else self._add_windows
            found = (self._summed(images[i : i + 1], size, add).argmax(dim=0) for i, size in enumerate(sizes))
        result = _no_classes(images)
        for i, (classes, (height, width)) in enumerate(zip(found, sizes, strict=True)):
            result[i, :height, :width] = classes
        return result

    def _scores(self, member: Member, x: Tensor, mirrored: bool = False) -> Tensor:
        """Class scores (B, K, ...) of every pixel of a network input, computed at every stride-th one."""
        height, width = x.shape[2:]
        if min(height, width) < member.smallest:
            missing = (0, max(0, member.smallest - width), 0, max(0, member.smallest - height))
            x = F.pad(x, missing, value=OUTSIDE[member.input])
        with self._autocast():
            if mirrored:
                scores = member.model.dense_logits(x.flip(-1), self.config.stride).flip(-1)
            else:
                scores = member.model.dense_logits(x, self.config.stride)
        return scores[:, :, :height, :width]

    def _on_grid(self, member: Member, x: Tensor, mirrored: bool) -> Tensor:
        """Class probabilities (B, K, rows, columns), float32, at every stride-th pixel."""
        step = self.config.stride
        return self._scores(member, x, mirrored)[:, :, ::step, ::step].float().softmax(dim=1)

    # ---- plain ----

    def _plain(self, images: Tensor, sizes: Sequence[Size], watch: Watch | None) -> Tensor:
        """Classes (B, H, W) by one network and one view; images of one size pass the network together."""
        groups = equal_sizes(sizes)
        if list(groups) == [tuple(images.shape[2:])]:
            return self._together(images, range(len(images)), watch)
        result = _no_classes(images)
        for (height, width), numbers in groups.items():
            alone = torch.stack([images[i, :, :height, :width] for i in numbers])
            for i, classes in zip(numbers, self._together(alone, numbers, watch), strict=True):
                result[i, :height, :width] = classes
        return result

    def _together(self, images: Tensor, numbers: Sequence[int], watch: Watch | None) -> Tensor:
        """Classes (B, h, w) of images (B, 3, h, w) of one size, which have these numbers in their batch."""
        member = self.members[0]
        scores = self._scores(member, normalise(images, member.input))
        if watch is not None:
            watch(numbers, scores)
        return scores.argmax(dim=1)

    def _summed(self, canvas: Tensor, size: Size, add: _Add) -> Tensor:
        """Summed probabilities (K, h, w) of one image, uint8 (1, 3, H, W), over all networks and views."""
        total: Tensor | None = None
        for member in self.members:
            total = add(total, member, canvas, size)
        assert total is not None
        return total

    def _add_views(self, total: Tensor | None, member: Member, canvas: Tensor, size: Size) -> Tensor:
        """Every view is of the image alone."""
        height, width = size
        alone = normalise(canvas[:, :, :height, :width], member.input)
        for scale in self.config.scales:
            x = resize(alone, scaled(size, scale))
            for mirrored in self._mirrorings:
                part = resize(self._scores(member, x, mirrored).float().softmax(dim=1), size)
                total = part[0] if total is None else total.add_(part[0])
        assert total is not None
        return total

    # ---- windows ----

    def _add_windows(self, total: Tensor | None, member: Member, canvas: Tensor, size: Size) -> Tensor:
        """Mean over the windows that cover a pixel, so that every scale counts alike; one scale: as the sum."""
        height, width = size
        alone = normalise(canvas[:, :, :height, :width], member.input)
        for scale in self.config.scales:
            part = resize(self._window_mean(member, resize(alone, scaled(size, scale)))[None], size)[0]
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def _window_mean(self, member: Member, picture: Tensor) -> Tensor:
        """Probabilities (K, h, w) of one picture (1, C, h, w), whose missing pixels are what lies outside of images."""
        side, (height, width) = self.config.side, picture.shape[2:]
        missing = (0, max(0, side - width), 0, max(0, side - height))
        padded = F.pad(picture, missing, value=OUTSIDE[member.input])
        corners = window_corners((height, width), side, self.config.window_stride)
        covered = padded.new_zeros(padded.shape[2:])
        total: Tensor | None = None
        for (top, left), part in self._windows(member, padded, corners):
            if total is None:
                total = part.new_zeros((len(part), *padded.shape[2:]))
            total[:, top : top + side, left : left + side] += part
            covered[top : top + side, left : left + side] += 1
        assert total is not None
        return total.div_(covered)[:, :height, :width]

    def _windows(self, member: Member, padded: Tensor, corners: list[Size]) -> Iterator[tuple[Size, Tensor]]:
        """Every window's corner and its probabilities (K, side, side), mirrored ones too; few at a time."""
        side, at_once = self.config.side, self.config.batch_size
        for first in range(0, len(corners), at_once):
            group = corners[first : first + at_once]
            crops = torch.cat([padded[:, :, top : top + side, left : left + side] for top, left in group])
            for mirrored in self._mirrorings:
                parts = self._on_grid(member, crops, mirrored)
                if self.config.stride > 1:
                    parts = magnify(parts, self.config.stride, range(side), side)
                yield from zip(group, parts, strict=True)

    # ---- fit ----

    def _fitted(self, images: Tensor, sizes: Sequence[Size]) -> Iterator[Tensor]:
        """Classes (h, w) of each image."""
        step = self.config.stride
        places = [fit_place(size, self.config.side) for size in sizes]
        grids = [on_grid(place, self.config.side, step) for place in places]
        shapes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in grids]
        totals: list[Tensor] = []
        for part in self._fit_views(images, sizes):
            cut = [resize(p[None], shape)[0] for p, shape in zip(part, shapes, strict=True)]
            totals = [a.add_(b) for a, b in zip(totals, cut, strict=True)] if totals else [c.clone() for c in cut]
        for total, size in zip(totals, sizes, strict=True):
            yield nearest(total.argmax(dim=0), size)

    def _fit_views(self, images: Tensor, sizes: Sequence[Size]) -> Iterator[list[Tensor]]:
        """For every network and view the probabilities (K, rows, columns) of the grid points on each picture."""
        for member in self.members:
            for scale in self.config.scales:
                side = scaled((self.config.side, self.config.side), scale)[0]
                places = [fit_place(size, side) for size in sizes]
                squares = torch.cat(
                    [
                        fit(
                            normalise(images[i : i + 1, :, :height, :width], member.input),
                            place,
                            side,
                            OUTSIDE[member.input],
                        )
                        for i, ((height, width), place) in enumerate(zip(sizes, places, strict=True))
                    ]
                )
                for mirrored in self._mirrorings:
                    grid = self._on_grid(member, squares, mirrored)
                    cuts = [on_grid(place, side, self.config.stride) for place in places]
                    yield [grid[i, :, rows, columns] for i, (rows, columns) in enumerate(cuts)]


@dataclass(frozen=True)
class Place:
    """Where a resized picture lies in its square, pixels."""

    top: int
    left: int
    height: int
    width: int


def fit_place(size: Size, side: int) -> Place:
    """The longer side becomes ``side``, the shorter one keeps the aspect, rounded half up; centred, odd rest below."""
    longest = max(size)
    height, width = (max(1, (2 * length * side + longest) // (2 * longest)) for length in size)
    return Place((side - height) // 2, (side - width) // 2, height, width)


def equal_sizes(sizes: Sequence[Size]) -> dict[Size, list[int]]:
    """Which images have each size, in the order of their first ones."""
    groups: dict[Size, list[int]] = {}
    for number, (height, width) in enumerate(sizes):
        groups.setdefault((height, width), []).append(number)
    return groups


def _no_classes(images: Tensor) -> Tensor:
    """Zeros int64 (B, H, W) for images (B, C, H, W)."""
    return torch.zeros((len(images), *images.shape[2:]), dtype=torch.int64, device=images.device)


def fit(picture: Tensor, place: Place, side: int, fill: float) -> Tensor:
    """The picture (1, C, h, w) resized into a square (1, C, side, side) of ``fill``."""
    square = picture.new_full((*picture.shape[:2], side, side), fill)
    resized = resize(picture, (place.height, place.width))
    square[:, :, place.top : place.top + place.height, place.left : place.left + place.width] = resized
    return square


def on_grid(place: Place, side: int, step: int) -> tuple[slice, slice]:
    """Rows and columns of the grid of step ``step`` whose points lie on the picture; at least one of each."""
    last = -(-side // step) - 1

    def cut(start: int, length: int) -> slice:
        first = min(-(-start // step), last)
        return slice(first, max(first + 1, -(-(start + length) // step)))

    return cut(place.top, place.height), cut(place.left, place.width)


def scaled(size: Size, factor: float) -> Size:
    """Sides times ``factor``, rounded half up, at least 1."""
    height, width = (max(1, int(length * factor + 0.5)) for length in size)
    return height, width


def resize(x: Tensor, size: Size) -> Tensor:
    """(B, C, h, w) resized bilinearly; ``x`` itself where nothing changes."""
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def nearest(classes: Tensor, size: Size) -> Tensor:
    """A class map (n, m) resized to ``size``: each pixel takes the cell that its centre falls into, exactly."""
    rows, columns = (
        torch.div((2 * torch.arange(new, device=classes.device) + 1) * old, 2 * new, rounding_mode="floor")
        for old, new in zip(classes.shape, size, strict=True)
    )
    return classes[rows[:, None], columns]


def window_corners(size: Size, side: int, step: int) -> list[Size]:
    """Upper left corners of the windows of an image, row by row; the last ones end flush with its border.

    An image of 1024 x 2048 has 3 x 7 windows of side 512 at distance 256. One smaller than a window has one.
    """
    rows, columns = ([*range(0, length - side, step), max(0, length - side)] for length in size)
    return [(top, left) for top in rows for left in columns]
