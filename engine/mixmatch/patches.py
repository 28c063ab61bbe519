"""Mix: labelled square patches of many sizes, drawn at random from a batch of images (PAPER 1.2).

Shapes: B images, H and W their sides in pixels, K candidates per image, P patches per image, N patches in all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CANDIDATES_PER_PATCH = 5
"""How many centres are drawn for every wanted patch (reference release: 5)."""


@dataclass(frozen=True)
class Patches:
    """Square windows ``[c - size/2, c + size/2)`` in a batch of images.

    ``image``, ``cy``, ``cx``, ``size`` and ``label`` are int64 (N,), in image order; ``size`` is even, in pixels.
    ``padding`` is float32 (N,), the share of the window outside its image, 0-1. ``overlap_rejections`` and
    ``topped_up`` are int64 scalars: candidates dropped for overlap before enough were found, and how many of
    those were taken back because too few were left.
    """

    image: Tensor
    cy: Tensor
    cx: Tensor
    size: Tensor
    label: Tensor
    padding: Tensor
    overlap_rejections: Tensor
    topped_up: Tensor

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class _Candidates:
    """Candidate windows, (B, K) each; ``label`` is that of the centre pixel."""

    cy: Tensor
    cx: Tensor
    size: Tensor
    label: Tensor

    def take(self, order: Tensor) -> _Candidates:
        return _Candidates(*(part.gather(1, order) for part in (self.cy, self.cx, self.size, self.label)))


def sample_patches(
    label_maps: Tensor,
    per_image: int,
    size: tuple[int, int] = (64, 256),
    background: int | None = 0,
    background_ratio: float = 0.1,
    overlap: float = 0.6,
    ignore_index: int = 255,
    generator: torch.Generator | None = None,
    reference_compat: bool = False,
) -> Patches:
    """Draw ``per_image`` patches from every image that has a labelled pixel.

    Centres are drawn uniformly from pixels, with replacement: with a background class ``max(1, int(P * ratio))``
    patches from its pixels and the others, at least one, from all further classes; without one, all from labelled
    pixels. Where a pool is empty its patches come from the other. A patch's label is the class of its centre pixel.
    Of five candidates per foreground patch, in the order drawn, one is dropped when kept windows already cover
    more than ``overlap`` of its own window (both clipped at the image); too few left, dropped ones are taken
    back in order. Background patches are not tested. Source: reference ``resources/create_patch.py``.

    Args:
        label_maps: int64 (B, H, W), classes and ``ignore_index``.
        per_image: patches per image P.
        size: smallest and largest side, pixels; a uniform integer between them is rounded down to even.
        background: class with a quota of its own, None = no such class.
        background_ratio: the quota, 0-1.
        overlap: covered share beyond which a candidate is dropped, 0-1.
        ignore_index: label of void pixels, never a centre.
        generator: source of randomness, on the device of ``label_maps``.
        reference_compat: repeat two quirks of the release: coverage is measured against the squared side of the
            image's first candidate, and background patches drawn from elsewhere are still labelled background.

    Raises:
        ValueError: sizes or counts out of range.
    """
    _check(label_maps, per_image, size)
    valid = label_maps != ignore_index
    is_background = (label_maps == background) if background is not None else torch.zeros_like(valid)
    quota = max(1, int(per_image * background_ratio)) if background is not None else 0
    quota = min(quota, per_image - 1)
    foreground = max(1, per_image - quota)

    front = _draw(label_maps, valid & ~is_background, valid, foreground * CANDIDATES_PER_PATCH, size, generator)
    chosen, rejected, topped = _choose(front, foreground, label_maps.shape[1:], overlap, reference_compat)
    parts = [front.take(chosen)]
    if quota:
        back = _draw(label_maps, valid & is_background, valid, quota, size, generator)
        if reference_compat and background is not None:
            back = _Candidates(back.cy, back.cx, back.size, torch.full_like(back.label, background))
        parts.append(back)
    usable = valid.flatten(1).any(dim=1)
    return _collect(parts, usable, label_maps.shape[1:], rejected[usable].sum(), topped[usable].sum())


def _check(label_maps: Tensor, per_image: int, size: tuple[int, int]) -> None:
    if label_maps.ndim != 3:
        raise ValueError(f"label_maps must be (B, H, W), got {tuple(label_maps.shape)}")
    if per_image < 1:
        raise ValueError(f"per_image must be at least 1, got {per_image}")
    if not 2 <= size[0] <= size[1]:
        raise ValueError(f"size must be (smallest, largest) with smallest >= 2, got {size}")


def _draw(
    label_maps: Tensor,
    pool: Tensor,
    fallback: Tensor,
    count: int,
    size: tuple[int, int],
    generator: torch.Generator | None,
) -> _Candidates:
    """``count`` uniform pixels per image from ``pool`` (B, H, W), or from ``fallback`` where the pool is empty."""
    empty = ~pool.flatten(1).any(dim=1)
    pool = torch.where(empty[:, None, None], fallback, pool)
    per_row = pool.sum(dim=2)
    up_to_row = per_row.cumsum(dim=1)
    total = up_to_row[:, -1:]
    uniform = _uniform((2, len(pool), count), label_maps.device, generator)
    # An image without any labelled pixel gets centre (0, 0); the caller leaves its patches out.
    pick = torch.minimum((uniform[0] * total).long(), (total - 1).clamp(min=0))
    cy = torch.searchsorted(up_to_row, pick, right=True).clamp(max=pool.shape[1] - 1)
    within = pick - (up_to_row.gather(1, cy) - per_row.gather(1, cy))
    image = torch.arange(len(pool), device=pool.device)[:, None]
    along = pool[image, cy].cumsum(dim=2)
    cx = torch.searchsorted(along, within[:, :, None], right=True).squeeze(2).clamp(max=pool.shape[2] - 1)
    low, high = size
    side = low + (uniform[1] * (high - low + 1)).long().clamp(max=high - low)
    return _Candidates(cy, cx, side - side % 2, label_maps[image, cy, cx])


def _uniform(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
    """float64 in [0, 1): 24 bits of float32 would bias the choice among many pixels."""
    return torch.rand(shape, generator=generator, device=device, dtype=torch.float64)


def _window(candidates: _Candidates, bounds: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Window edges y0, y1, x0, x1, each (B, K), clipped at the image of ``bounds`` (H, W)."""
    half = candidates.size // 2
    height, width = bounds
    return (
        (candidates.cy - half).clamp(min=0),
        (candidates.cy + half).clamp(max=height),
        (candidates.cx - half).clamp(min=0),
        (candidates.cx + half).clamp(max=width),
    )


def _choose(
    candidates: _Candidates, wanted: int, bounds: tuple[int, ...], overlap: float, compat: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy choice in candidate order, all images at once.

    The union of kept windows is held on the grid of all window edges, whose cells are covered wholly or not at
    all: exact, and a hundred times smaller than a mask of pixels.

    Returns:
        indices (B, wanted) of the chosen candidates, and per image the numbers rejected and taken back, (B,).
    """
    y0, y1, x0, x1 = _window(candidates, bounds)
    rows, heights = _cells(y0, y1)
    columns, widths = _cells(x0, x1)
    area = ((y1 - y0) * (x1 - x0)).double()
    if compat:
        area = candidates.size[:, :1].double().square().expand_as(area)
    batch, count = y0.shape
    covered = heights.new_zeros((batch, rows.shape[2], columns.shape[2]))
    kept = torch.zeros((batch, count), dtype=torch.bool, device=y0.device)
    considered = torch.zeros_like(kept)
    for k in range(count):
        missing = kept.sum(dim=1) < wanted
        already = torch.einsum("br,brc,bc->b", rows[:, k] * heights, covered, columns[:, k] * widths)
        keep = missing & (already <= overlap * area[:, k])
        kept[:, k] = keep
        considered[:, k] = missing
        window = rows[:, k, :, None] * columns[:, k, None, :] * keep[:, None, None]
        covered = torch.maximum(covered, window)
    rejected = (considered & ~kept).sum(dim=1)
    topped = (wanted - kept.sum(dim=1)).clamp(min=0)
    order = torch.argsort((~kept).to(torch.uint8), dim=1, stable=True)
    return order[:, :wanted], rejected, topped


def _cells(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Intervals between all edges of an axis: membership of each candidate (B, K, E) and lengths (B, E), float64."""
    edges = torch.cat([low, high], dim=1).sort(dim=1).values
    start, stop = edges[:, :-1], edges[:, 1:]
    inside = (start[:, None] >= low[:, :, None]) & (stop[:, None] <= high[:, :, None])
    return inside.double(), (stop - start).double()


def _collect(
    parts: list[_Candidates], usable: Tensor, bounds: tuple[int, ...], rejected: Tensor, topped: Tensor
) -> Patches:
    joined = _Candidates(
        *(torch.cat([getattr(part, name)[usable] for part in parts], dim=1) for name in ("cy", "cx", "size", "label"))
    )
    y0, y1, x0, x1 = _window(joined, bounds)
    inside = ((y1 - y0) * (x1 - x0)).float() / joined.size.float().square()
    image = torch.nonzero(usable).expand(-1, joined.cy.shape[1])
    return Patches(
        image.flatten(),
        joined.cy.flatten(),
        joined.cx.flatten(),
        joined.size.flatten(),
        joined.label.flatten(),
        (1 - inside).flatten(),
        rejected,
        topped,
    )


def crop_patches(images: Tensor, patches: Patches, output_size: int = 128, fill: float = 0) -> Tensor:
    """Cut the patches out of their images and resize them.

    Outside the image a window holds ``fill``. Resizing is bilinear with half-pixel centres and without
    antialiasing, inside the window alone, as OpenCV's INTER_LINEAR resizes a cut-out.

    Args:
        images: float (B, C, H, W).
        patches: windows in them.
        output_size: side of the result, pixels.
        fill: value outside the image.

    Returns:
        (N, C, output_size, output_size) of the images' dtype, on their device.
    """
    if not images.is_floating_point():
        images = images.float()
    if len(patches) == 0:
        return images.new_zeros((0, images.shape[1], output_size, output_size))
    grid, slot, most = _sampling_grid(images, patches, output_size)
    shifted = images - fill if fill else images
    tall = F.grid_sample(shifted, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    stacked = tall.unflatten(2, (most, output_size)).transpose(1, 2)
    cut: Tensor = stacked[patches.image, slot]
    return cut + fill if fill else cut


def _sampling_grid(images: Tensor, patches: Patches, output_size: int) -> tuple[Tensor, Tensor, int]:
    """All patches of an image stacked in one tall grid, so that no image is copied: (B, most * out, out, 2)."""
    batch, _, height, width = images.shape
    per_image = torch.bincount(patches.image, minlength=batch)
    first = per_image.cumsum(0) - per_image
    by_image = torch.argsort(patches.image, stable=True)
    slot = torch.empty_like(patches.image)
    slot[by_image] = torch.arange(len(patches), device=images.device) - first[patches.image[by_image]]
    most = int(per_image.max())
    ys = _axis(patches.cy, patches.size, output_size, height, images.dtype)
    xs = _axis(patches.cx, patches.size, output_size, width, images.dtype)
    shape = (len(patches), output_size, output_size)
    own = torch.stack([xs[:, None, :].expand(shape), ys[:, :, None].expand(shape)], dim=3)
    grid = own.new_full((batch, most, output_size, output_size, 2), -2.0)
    grid[patches.image, slot] = own
    return grid.flatten(1, 2), slot, most


def _axis(center: Tensor, size: Tensor, output_size: int, side: int, dtype: torch.dtype) -> Tensor:
    """Where the output pixels read, (N, output_size), in grid_sample's units (-1 .. 1 over the image's side)."""
    steps = torch.arange(output_size, device=center.device, dtype=torch.float64)
    size_f = size.double()[:, None]
    within = ((steps + 0.5) * size_f / output_size - 0.5).clamp(min=0)
    within = torch.minimum(within, size_f - 1)
    position = (center - size // 2).double()[:, None] + within
    return ((2 * position + 1) / side - 1).to(dtype)
