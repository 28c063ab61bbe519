"""From decoded data to training batches: order, random crops, mirroring, normalisation. All of it vectorised."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from engine import host
from engine.config.schema import InputName
from engine.data.augment import draw_factors, gather_resized, jitter_colours, resized
from engine.data.dataset import SegmentationData
from engine.data.values import VOID
from engine.data.waiting import counted

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GRAY_MEAN = 0.4488
"""Mean grey value subtracted from gray input: 114.451 / 255 (Larsson et al. 2017, public code)."""
OUTSIDE = {"rgb": 0.0, "rgb255": 0.0, "gray": -GRAY_MEAN}
"""Network input outside of images, in crops, patches and evaluations alike. The release puts 0 into the network's data
there: that is the mean where the data layer subtracts it, and black for the colorization nets, which subtract theirs
themselves (PAPER 1.2 item 7, 2.1, 2.5)."""
OUTSIDE_PIXEL = {"rgb": (124, 116, 104), "rgb255": (124, 116, 104), "gray": (0, 0, 0)}
"""The same as R, G and B of an image, to whole grey levels."""
BLACK = (0, 0, 0)


def epoch_indices(seed: int, step: int, batch_size: int, n: int) -> Tensor:
    """Which images step ``step`` sees: int64 (batch_size,) on the CPU.

    A pure function of its arguments: nothing has to be stored to resume. Every epoch (n consecutive samples)
    visits each image once, in an order of its own; a batch may span two epochs.
    """
    if n < 1 or batch_size < 1 or step < 0:
        raise ValueError(f"epoch_indices needs n >= 1, batch_size >= 1, step >= 0, got {n}, {batch_size}, {step}")
    first = step * batch_size
    parts = []
    for epoch in range(first // n, (first + batch_size - 1) // n + 1):
        low = max(first - epoch * n, 0)
        high = min(first + batch_size - epoch * n, n)
        parts.append(_permutation(seed, epoch, n)[low:high])
    return torch.cat(parts)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> Tensor:
    digest = hashlib.blake2b(f"order/{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randperm(n, generator=generator)


@counted
def sample_crops(
    data: SegmentationData,
    indices: Tensor,
    crop: int,
    generator: torch.Generator,
    mirror: bool = True,
    scale_jitter: tuple[float, float] = (1.0, 1.0),
    colour_jitter: float = 0.0,
    label_dtype: torch.dtype = torch.int64,
    channels_last: bool = False,
    fill: tuple[int, int, int] = BLACK,
) -> tuple[Tensor, Tensor]:
    """Random square crops, each mirrored with probability 1/2.

    A side longer than ``crop`` is cut at a uniform offset; a shorter one is placed at a uniform offset inside
    the crop and surrounded by ``fill`` and labels 255 (PAPER 2.1: "zero pad + label 255 outside").

    Args:
        data: images on any device; the result is on ``data.device``.
        indices: int64 (B,), which images.
        crop: side of the crop, pixels.
        generator: source of all randomness, on any device.
        mirror: whether to mirror at all.
        scale_jitter: smallest and largest factor by which an image is resized before it is cropped, drawn uniformly.
        colour_jitter: strength of random brightness and contrast. Both draw no random number when they are off.
        label_dtype: of the labels that are returned; uint8 is what the data hold.
        channels_last: how images had best lie in memory, where there is a choice.
        fill: R, G and B outside of images; what a network is to see there is ``OUTSIDE_PIXEL``.

    Returns:
        images uint8 (B, 3, crop, crop) and labels (B, crop, crop).
    """
    if data.feed is not None:
        data = data.take(indices)
        indices = torch.arange(len(data))
    device = data.device
    indices = host.send(indices, device)
    draw = torch.rand((3, len(indices)), generator=generator, device=generator.device, dtype=torch.float64)
    draw = draw.to(device)
    sizes = data.sizes[indices]
    new_sizes = sizes
    if scale_jitter != (1.0, 1.0):
        new_sizes = resized(sizes, draw_factors(len(indices), scale_jitter, generator).to(device))
    offsets = _offsets(new_sizes, crop, draw[:2].T)
    flip = (draw[2] < 0.5) if mirror else torch.zeros(len(indices), dtype=torch.bool, device=device)
    steps = torch.arange(crop, device=device)
    if host.on_host(sizes) and new_sizes is sizes and not colour_jitter:
        images, labels = _copy_windows(data, indices, offsets, flip, crop, channels_last, fill)
        return images, labels.to(label_dtype)
    rows = offsets[:, 0:1] + steps
    columns = offsets[:, 1:2] + torch.where(flip[:, None], crop - 1 - steps, steps)
    inside = _inside(rows, columns, new_sizes)
    if new_sizes is sizes:
        images, labels = _gather(data, indices, rows, columns, inside)
    else:
        images, labels = gather_resized(data, indices, rows, columns, sizes, new_sizes, inside)
    if colour_jitter:
        images = jitter_colours(images, inside, colour_jitter, generator)
    return _filled(images, inside, fill), labels.to(label_dtype)


def _filled(images: Tensor, inside: Tensor, fill: tuple[int, int, int]) -> Tensor:
    """The images with a colour in the place of the black outside of them."""
    if any(fill):
        for channel, value in enumerate(fill):
            images[:, channel].masked_fill_(~inside, value)
    return images


def _offsets(sizes: Tensor, crop: int, draw: Tensor) -> Tensor:
    """Upper left corner of each crop in image coordinates, (B, 2); negative where the image is smaller."""
    slack = sizes - crop
    span = slack.abs() + 1
    position = torch.minimum((draw * span).long(), span - 1)
    return torch.where(slack >= 0, position, -position)


def _gather(
    data: SegmentationData, indices: Tensor, rows: Tensor, columns: Tensor, inside: Tensor
) -> tuple[Tensor, Tensor]:
    """Read pixels at rows (B, crop) x columns (B, crop); whole rows first, as those are contiguous copies."""
    count, _, height, width = data.images.shape
    batch, crop = rows.shape
    outside = ~inside
    safe_rows = rows.clamp(0, height - 1)
    safe_columns = columns.clamp(0, width - 1)

    channel = torch.arange(3, device=rows.device)
    row_ids = ((indices[:, None] * 3 + channel)[:, :, None] * height + safe_rows[:, None, :]).flatten()
    lines = data.images.reshape(count * 3 * height, width).index_select(0, row_ids).view(batch, 3, crop, width)
    images = lines.gather(3, safe_columns[:, None, None, :].expand(batch, 3, crop, crop))
    images = images.masked_fill_(outside[:, None], 0)

    label_lines = data.labels[indices[:, None], safe_rows]
    labels = label_lines.gather(2, safe_columns[:, None, :].expand(batch, crop, crop))
    return images, labels.masked_fill_(outside, VOID)


def _copy_windows(
    data: SegmentationData,
    indices: Tensor,
    offsets: Tensor,
    flip: Tensor,
    crop: int,
    channels_last: bool = False,
    fill: tuple[int, int, int] = BLACK,
) -> tuple[Tensor, Tensor]:
    """The same on a CPU, where a window's lines are copied from where they lie, image by image."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.empty((len(indices), 3, crop, crop), dtype=torch.uint8, memory_format=layout)
    labels = torch.empty((len(indices), crop, crop), dtype=torch.uint8)
    # NumPy mirrors without a copy, and writes into every third byte several times as fast as torch.
    sources, targets = (data.images.numpy(), data.labels.numpy()), (images.numpy(), labels.numpy())
    rows = zip(*(part.tolist() for part in (indices, offsets, data.sizes[indices], flip)), strict=True)
    for number, (index, (top, left), (height, width), mirrored) in enumerate(rows):
        y0, y1 = max(top, 0), min(top + crop, height)
        x0, x1 = max(left, 0), min(left + crop, width)
        if (y1 - y0) * (x1 - x0) < crop * crop:
            targets[0][number], targets[1][number] = np.array(fill, np.uint8)[:, None, None], VOID
        window = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
        planes = zip((*sources[0][index], sources[1][index]), (*targets[0][number], targets[1][number]), strict=True)
        for source, target in planes:
            (target[:, ::-1] if mirrored else target)[window] = source[y0:y1, x0:x1]
    return images, labels


def _inside(rows: Tensor, columns: Tensor, sizes: Tensor) -> Tensor:
    """Which pixels of rows (B, crop) x columns (B, crop) lie in their image; bool (B, crop, crop)."""
    row_in = (rows >= 0) & (rows < sizes[:, 0:1])
    column_in = (columns >= 0) & (columns < sizes[:, 1:2])
    return row_in[:, :, None] & column_in[:, None, :]


def normalise(images: Tensor, input: InputName) -> Tensor:
    """Pixel values 0..255 to network input, float32.

    rgb: (B, 3, H, W), scaled to 0..1, minus the ImageNet mean, divided by the ImageNet standard deviation.
    rgb255: (B, 3, H, W), minus the ImageNet mean, as the release's colour networks but for the order of channels.
    gray: (B, 1, H, W), mean of R, G and B scaled to 0..1 minus 0.4488, the input of Larsson et al. and of the
    reference release.
    """
    values = images.to(torch.float32)
    if input == "gray":
        return values.mean(dim=1, keepdim=True).div_(255.0).sub_(GRAY_MEAN)
    mean, scale = colour_constants(images.device, input)
    return values.sub_(mean).mul_(scale) if values is not images else (values - mean) * scale


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # training, too, uses what an evaluation has made
def colour_constants(device: torch.device, input: InputName) -> tuple[Tensor, Tensor]:
    """What is subtracted from pixel values 0..255, and then their factor, float32 (1, 3, 1, 1) both.

    Once made, nothing is sent for them. Nobody may change them.
    """
    mean = torch.tensor(IMAGENET_MEAN, device=device).mul_(255.0).view(1, 3, 1, 1)
    if input == "rgb255":
        return mean, torch.ones_like(mean)
    scale = torch.tensor(IMAGENET_STD, device=device).mul_(255.0).reciprocal_().view(1, 3, 1, 1)
    return mean, scale
