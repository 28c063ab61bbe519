"""Cutting patches out of images and resizing them on a CPU, window by window.

A window is read where it lies, so neither its image nor what surrounds it is copied or converted, and every patch is
written once, to its place in the batch: several times as fast as one ``grid_sample`` of the batch on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.host import one_thread

if TYPE_CHECKING:
    from engine.mixmatch.patches import Patches


def cut_windows(
    images: Tensor, patches: Patches, out: Tensor, fill: float = 0.0, affine: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Resize all windows (PAPER 1.2: bilinear, half-pixel centres, no antialiasing, the window alone is read).

    Args:
        images: (B, C, H, W) on the CPU, of any type.
        patches: windows in them, in any order.
        out: float32 or float64 (N, C, side, side), contiguous in either memory format; it decides the precision.
        fill: what a window holds outside of its image.
        affine: factor and summand of each channel, (C,) both: the result is that of images to which they were applied
            first, outside of which there is ``fill`` 0.

    Returns:
        ``out``.
    """
    assert not (fill and affine), "an affine map is for windows that are 0 outside"
    windows = zip(*(part.tolist() for part in (patches.image, patches.cy, patches.cx, patches.size)), strict=True)
    finish = _Affine(out, patches, images.shape[2:], *affine) if affine else None
    with one_thread(), torch.no_grad():
        for number, box in enumerate(windows):
            window, whole = _window(images, box, out.dtype, fill)
            torch.ops.aten.upsample_bilinear2d.out(window, out.shape[2:], False, out=out[number : number + 1])
            if finish:
                finish.apply(number, whole)  # while the patch is still in the processor's cache
    return out


def _window(images: Tensor, window: tuple[int, int, int, int], dtype: torch.dtype, fill: float) -> tuple[Tensor, bool]:
    """The pixels (1, C, size, size) of a window (image, cy, cx, size), and whether it lies in its image."""
    image, cy, cx, size = window
    top, left = cy - size // 2, cx - size // 2
    y0, y1 = max(top, 0), min(top + size, images.shape[2])
    x0, x1 = max(left, 0), min(left + size, images.shape[3])
    seen = images[image : image + 1, :, y0:y1, x0:x1]
    if (y1 - y0) * (x1 - x0) == size * size:
        return seen.to(dtype), True
    layout = torch.channels_last if images.stride(1) == 1 < images.shape[1] else torch.contiguous_format
    padded = torch.empty((1, images.shape[1], size, size), dtype=dtype, memory_format=layout).fill_(fill)
    padded[:, :, y0 - top : y1 - top, x0 - left : x1 - left] = seen
    return padded, False


class _Affine:
    """Multiplies and adds whole lines of patches as they lie in memory.

    The summand counts where there is an image: by the share of a pixel that was read inside of it.
    """

    def __init__(self, out: Tensor, patches: Patches, bounds: Sequence[int], factor: Tensor, summand: Tensor) -> None:
        side, factor, summand = out.shape[3], factor.to(out.dtype), summand.to(out.dtype)
        self.rows, columns = (
            share_inside(center, patches.size, side, bound, out.dtype)[:, :, None]
            for center, bound in zip((patches.cy, patches.cx), bounds, strict=True)
        )
        if out.shape[1] > 1 and out.is_contiguous(memory_format=torch.channels_last):
            # Channels lie side by side: lines of side * C numbers.
            self.lines = out.permute(0, 2, 3, 1).flatten(2)
            self.factor, self.summand = factor.repeat(side), summand.repeat(side)
            self.columns = (columns * summand).flatten(1)[:, None, :]
        else:
            self.lines, self.factor, self.summand = out, factor.view(-1, 1, 1), summand.view(-1, 1, 1)
            self.rows, self.columns = self.rows[:, None], columns.mT[:, None] * self.summand

    def apply(self, number: int, whole: bool) -> None:
        """To one patch; ``whole``: its window lies in the image."""
        summand = self.summand if whole else self.rows[number] * self.columns[number]
        torch.addcmul(summand, self.lines[number], self.factor, out=self.lines[number])


def share_inside(center: Tensor, size: Tensor, side: int, bound: int, dtype: torch.dtype) -> Tensor:
    """By how much each of ``side`` positions along an axis reads pixels that lie in 0 .. bound - 1, 0-1; (N, side)."""
    steps = torch.arange(side, dtype=torch.float64)
    within = ((steps + 0.5) * size[:, None] / side - 0.5).clamp(min=0)
    within = torch.minimum(within, size[:, None].double() - 1)
    low = within.floor()
    weight = within - low
    first = low + (center - size // 2)[:, None]
    second = torch.minimum(low + 1, size[:, None] - 1.0) + (center - size // 2)[:, None]
    inside = [((at >= 0) & (at < bound)).double() for at in (first, second)]
    return (inside[0] * (1 - weight) + inside[1] * weight).to(dtype)
