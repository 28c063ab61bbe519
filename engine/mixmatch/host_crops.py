"""Cutting patches out of images and resizing them on a CPU, window by window.

A window is read where it lies, so neither its image nor what surrounds it is copied or converted, and every patch is
written once, to its place in the batch: several times as fast as one ``grid_sample`` of the batch on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engine.host import one_thread
from engine.mixmatch.window_cutters import Cutter, window_cutter
from engine.mixmatch.windows import Patches


def cut_windows(
    images: Tensor,
    patches: Patches,
    out: Tensor,
    fill: Tensor,
    affine: tuple[Tensor, Tensor] | None = None,
    cutter: Callable[[Tensor, Tensor, Tensor], Cutter] = window_cutter,
) -> Tensor:
    """Resize all windows (PAPER 1.2: bilinear, half-pixel centres, no antialiasing, the window alone is read).

    Args:
        images: (B, C, H, W) on the CPU, of any type.
        patches: windows in them, in any order.
        out: float32 or float64 (N, C, side, side), contiguous in either memory format; it decides the precision.
        fill: what a window holds outside of its image, (C,), in units of ``images``.
        affine: factor and summand of each channel, (C,) both, that are applied to what was cut.
        cutter: how single windows are cut, of ``engine.mixmatch.window_cutters``.

    Returns:
        ``out``.
    """
    windows = zip(*(part.tolist() for part in (patches.image, patches.cy, patches.cx, patches.size)), strict=True)
    with one_thread(), torch.no_grad():
        cut = cutter(images, out, fill)
        finish = _affine(out, *affine) if affine else None
        for number, box in enumerate(windows):
            cut(number, box)
            if finish:
                finish(number)  # while the patch is still in the processor's cache
    return out


def _affine(out: Tensor, factor: Tensor, summand: Tensor) -> Callable[[int], None]:
    """Multiplies and adds whole lines of a patch as they lie in memory."""
    factor, summand = factor.to(out.dtype), summand.to(out.dtype)
    if out.shape[1] > 1 and out.is_contiguous(memory_format=torch.channels_last):
        # Channels lie side by side: lines of side * C numbers.
        lines, side = out.permute(0, 2, 3, 1).flatten(2).unbind(), out.shape[3]
        factor, summand = factor.repeat(side), summand.repeat(side)
    else:
        lines, factor, summand = out.unbind(), factor.view(-1, 1, 1), summand.view(-1, 1, 1)

    def apply(number: int) -> None:
        line = lines[number]
        torch.addcmul(summand, line, factor, out=line)

    return apply
