"""Cutting patches out of images in operations on the whole batch, for GPUs and for gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.mixmatch.windows import Patches


def crop_on_device(images: Tensor, patches: Patches, output_size: int, fill: float, dtype: torch.dtype) -> Tensor:
    """Cut all windows and resize them.

    Args:
        images: (B, C, H, W).
        patches: windows in them, in any order.
        output_size: side of the result, pixels.
        fill: value outside the image.
        dtype: of the result.

    Returns:
        (N, C, output_size, output_size).
    """
    # Positions need float32 at least: half precision cannot tell neighbouring pixels apart.
    exact = images.to(torch.promote_types(dtype, torch.float32))
    most, slot = _slots(patches, len(images))
    grid = _sampling_grid(patches, output_size, exact)
    if slot is not None:
        grid = grid.new_full((len(images) * most, *grid.shape[1:]), -2.0).index_copy(0, slot, grid)
    # All patches of an image stand in one tall grid, so that no image is copied.
    grid = grid.unflatten(0, (len(images), most)).flatten(1, 2)
    tall = F.grid_sample(exact - fill if fill else exact, grid, padding_mode="zeros", align_corners=False)
    cut: Tensor = tall.unflatten(2, (most, output_size)).transpose(1, 2).flatten(0, 1)
    if slot is not None:
        cut = cut[slot]
    return (cut + fill if fill else cut).to(dtype)


def _slots(patches: Patches, batch: int) -> tuple[int, Tensor | None]:
    """Most patches of one image M, and each patch's place in a table of B x M; None if that is its number already."""
    image, known = patches.image, patches.per_image
    if known and len(image) == known * batch:
        return known, None
    number = torch.arange(len(image), device=image.device)
    if known:
        return known, image * known + number % known
    even = len(image) // batch
    if len(image) == even * batch and torch.equal(image, number // even):
        return even, None
    per_image = torch.bincount(image, minlength=batch)
    by_image = torch.argsort(image, stable=True)
    first = (per_image.cumsum(0) - per_image)[image[by_image]]
    most = int(per_image.max())
    slot = torch.empty_like(image)
    slot[by_image] = image[by_image] * most + number - first
    return most, slot


def _sampling_grid(patches: Patches, output_size: int, images: Tensor) -> Tensor:
    """Where every pixel of every patch reads, (N, out, out, 2) as (x, y) in -1 .. 1 over the image's side."""
    height, width = images.shape[2:]
    ys = _axis(patches.cy, patches.size, output_size, height, images.dtype)
    xs = _axis(patches.cx, patches.size, output_size, width, images.dtype)
    shape = (len(patches), output_size, output_size)
    return torch.stack([xs[:, None, :].expand(shape), ys[:, :, None].expand(shape)], dim=3)


def _axis(center: Tensor, size: Tensor, output_size: int, side: int, dtype: torch.dtype) -> Tensor:
    """Where the output pixels read, (N, output_size), in grid_sample's units (-1 .. 1 over the image's side)."""
    steps = torch.arange(output_size, device=center.device, dtype=torch.float64)
    size_f = size.double()[:, None]
    within = ((steps + 0.5) * size_f / output_size - 0.5).clamp(min=0)
    within = torch.minimum(within, size_f - 1)
    position = (center - size // 2).double()[:, None] + within
    return ((2 * position + 1) / side - 1).to(dtype)
