"""Random resizing and random brightness and contrast of crops, in whole numbers and so alike on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.data.dataset import SegmentationData
from engine.data.values import VOID

WEIGHT_BITS = 11
"""Bilinear weights are multiples of 2**-11, as in OpenCV's fixed-point resize."""
_ONE = 1 << WEIGHT_BITS


def draw_factors(count: int, limits: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Uniform factors, float64 (count,) on the generator's device."""
    low, high = limits
    draw = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)
    return low + (high - low) * draw


def resized(sizes: Tensor, factors: Tensor) -> Tensor:
    """Sizes (B, 2) times factors (B,), rounded (halves to even), at least one pixel; int64 (B, 2)."""
    return (sizes * factors[:, None]).round().long().clamp(min=1)


def gather_resized(
    data: SegmentationData,
    indices: Tensor,
    rows: Tensor,
    columns: Tensor,
    sizes: Tensor,
    new_sizes: Tensor,
    inside: Tensor,
) -> tuple[Tensor, Tensor]:
    """Pixels at rows (B, crop) x columns (B, crop) of images resized from ``sizes`` to ``new_sizes``, both (B, 2).

    Half-pixel centres, no antialiasing, edges repeated. Images are bilinear, rounded to whole numbers; labels are
    the nearest pixel's. Where ``inside``, bool (B, crop, crop), is false: 0 and 255.

    Returns:
        images uint8 (B, 3, crop, crop), labels uint8 (B, crop, crop).
    """
    top, bottom, down = _taps(rows, sizes[:, 0:1], new_sizes[:, 0:1])
    left, right, along = _taps(columns, sizes[:, 1:2], new_sizes[:, 1:2])
    down, along = down[:, None, :, None], along[:, None, None, :]

    def blend(lines: Tensor) -> Tensor:
        first, second = (_columns(lines, at).int() for at in (left, right))
        return first * (_ONE - along) + second * along

    upper, lower = (blend(_lines(data.images, indices, at)) for at in (top, bottom))
    mixed = upper * (_ONE - down) + lower * down
    images = (mixed + (1 << (2 * WEIGHT_BITS - 1))) >> (2 * WEIGHT_BITS)
    images = images.to(torch.uint8).masked_fill_(~inside[:, None], 0)

    near_rows = _nearest(rows, sizes[:, 0:1], new_sizes[:, 0:1])
    near_columns = _nearest(columns, sizes[:, 1:2], new_sizes[:, 1:2])
    labels = data.labels[indices[:, None, None], near_rows[:, :, None], near_columns[:, None, :]]
    return images, labels.masked_fill_(~inside, VOID)


def _taps(at: Tensor, size: Tensor, new_size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels that position ``at`` of the resized side lies between, and the weight of the second, int32.

    The position is ((2 at + 1) size / new_size - 1) / 2, kept as a fraction so that nothing is rounded but weights.
    """
    numerator = (2 * at + 1) * size - new_size
    denominator = 2 * new_size
    low = torch.div(numerator, denominator, rounding_mode="floor")
    rest = numerator - low * denominator
    weight = torch.div(2 * _ONE * rest + denominator, 2 * denominator, rounding_mode="floor")
    last = size - 1
    return _between(low, last), _between(low + 1, last), weight.int()


def _nearest(at: Tensor, size: Tensor, new_size: Tensor) -> Tensor:
    """The pixel that the centre of pixel ``at`` of the resized side falls into."""
    return _between(torch.div((2 * at + 1) * size, 2 * new_size, rounding_mode="floor"), size - 1)


def _between(at: Tensor, last: Tensor) -> Tensor:
    return torch.minimum(at.clamp(min=0), last)


def _lines(images: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Whole rows (B, 3, crop, W): contiguous copies."""
    count, channels, height, width = images.shape
    channel = torch.arange(channels, device=rows.device)
    ids = ((indices[:, None] * channels + channel)[:, :, None] * height + rows[:, None, :]).flatten()
    flat = images.reshape(count * channels * height, width)
    return flat.index_select(0, ids).view(len(indices), channels, rows.shape[1], width)


def _columns(lines: Tensor, columns: Tensor) -> Tensor:
    batch, channels, crop, _ = lines.shape
    return lines.gather(3, columns[:, None, None, :].expand(batch, channels, crop, crop))


def jitter_colours(images: Tensor, inside: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Random brightness and contrast: each value v becomes b (m + c (v - m)), rounded and cut to 0 .. 255.

    b and c are uniform in 1 - strength .. 1 + strength, drawn for each image; m is the mean of all its values inside.

    Args:
        images: uint8 (B, 3, H, W).
        inside: bool (B, H, W), which pixels belong to the image; the others stay as they are.
    """
    limits = (1 - strength, 1 + strength)
    bright, contrast = (draw_factors(len(images), limits, generator).to(images.device) for _ in range(2))
    total = images.long().mul_(inside[:, None]).sum(dim=(1, 2, 3))
    mean = total.double() / (3 * inside.sum(dim=(1, 2))).clamp(min=1)
    factor = (bright * contrast).float().view(-1, 1, 1, 1)
    offset = (bright * mean * (1 - contrast)).float().view(-1, 1, 1, 1)
    changed = images.float().mul_(factor).add_(offset).round_().clamp_(0, 255).to(torch.uint8)
    return torch.where(inside[:, None], changed, images)
