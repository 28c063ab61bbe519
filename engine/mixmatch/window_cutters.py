"""Reading one window of an image and resizing it on a CPU: by OpenCV where it is installed, by torch elsewhere.

Both are bilinear with half-pixel centres and without antialiasing. OpenCV takes half the time; its numbers are
torch's where the sides of patches are a power of two, and within a hundredth of a grey level elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Window: TypeAlias = tuple[int, int, int, int]
"""Image, row and column of the centre, side."""

Cutter: TypeAlias = Callable[[int, Window], None]
"""Writes the patch of that number."""


def window_cutter(images: Tensor, out: Tensor, fill: Tensor) -> Cutter:
    """The fastest way there is here.

    Args:
        images: (B, C, H, W) on the CPU, of any type.
        out: float32 or float64 (N, C, side, side), contiguous in either memory format; it decides the precision.
        fill: what each channel of a window holds outside of its image, (C,).
    """
    # OpenCV weighs in single precision always, and does not know a picture of one pixel by its strides.
    able = out.dtype == torch.float32 and out.shape[3] > 1 and opencv() is not None
    return opencv_cutter(images, out, fill) if able else torch_cutter(images, out, fill)


@functools.cache
def opencv() -> ModuleType | None:
    """OpenCV, if it is installed (extra ``cpu``), with one thread: a patch is too small to be shared out."""
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(1)
    module: ModuleType = cv2
    return module


def opencv_version() -> str:
    """Version of the OpenCV that cuts patches here, "" where torch does."""
    found = opencv()
    return "" if found is None else str(found.__version__)


def torch_cutter(images: Tensor, out: Tensor, fill: Tensor) -> Cutter:
    """Arguments as of ``window_cutter``."""
    layout = torch.channels_last if images.stride(1) == 1 < images.shape[1] else torch.contiguous_format

    outside, bounds = fill.to(out.dtype).view(1, -1, 1, 1), tuple(images.shape[2:])

    def cut(number: int, window: Window) -> None:
        seen, place, whole = _edges(window, bounds)
        pixels = images[window[0] : window[0] + 1, :, seen[0], seen[1]]
        if whole:
            pixels = pixels.to(out.dtype)
        else:
            padded = torch.empty((1, images.shape[1], window[3], window[3]), dtype=out.dtype, memory_format=layout)
            padded.copy_(outside)[:, :, place[0], place[1]] = pixels
            pixels = padded
        torch.ops.aten.upsample_bilinear2d.out(pixels, out.shape[2:], False, out=out[number : number + 1])

    return cut


def opencv_cutter(images: Tensor, out: Tensor, fill: Tensor) -> Cutter:
    """Arguments as of ``window_cutter``, but ``out`` is float32 with sides above 1. OpenCV must be installed."""
    cv2 = opencv()
    assert cv2 is not None and out.dtype == torch.float32 and out.shape[3] > 1
    if images.is_floating_point():
        images = images.to(out.dtype)  # NumPy has no bfloat16
    channels, side = out.shape[1], out.shape[3]
    # Channels side by side are resized together, planes one by one.
    together = channels > 1 and out.is_contiguous(memory_format=torch.channels_last)
    source, result = images.numpy(), list((out.permute(0, 2, 3, 1) if together else out).numpy())
    bounds = source.shape[2:]
    scratch, outside = np.empty(0, dtype=np.float32), np.empty((channels, 0, 0), dtype=np.float32)

    def picture(memory: NDArray[np.float32], size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A picture in the beginning of ``memory``, as OpenCV reads it and as planes (C, size, size)."""
        flat = memory[: channels * size * size]
        pixels = flat.reshape((size, size, channels) if together else (channels, size, size))
        return pixels, pixels.transpose(2, 0, 1) if together else pixels

    def cut(number: int, window: Window) -> None:
        nonlocal scratch, outside
        size = window[3]
        if scratch.size < channels * size * size:
            scratch = np.empty(channels * size * size, dtype=np.float32)
            outside = picture(np.empty_like(scratch), size)[1]
            outside[:] = fill.to(out.dtype).view(-1, 1, 1).numpy()
        seen, place, whole = _edges(window, bounds)
        pixels, planes = picture(scratch, size)
        if not whole:
            for rows, columns in _beside(*place, size):
                planes[:, rows, columns] = outside[:, rows, columns]
        planes[:, place[0], place[1]] = source[window[0], :, seen[0], seen[1]]
        for part, target in ((pixels, result[number]),) if together else zip(pixels, result[number], strict=True):
            cv2.resize(part, (side, side), dst=target)

    return cut


def _edges(window: Window, bounds: Sequence[int]) -> tuple[tuple[slice, slice], tuple[slice, slice], bool]:
    """What of an image of ``bounds`` (H, W) a window sees, where in the window that lies, and whether that is all."""
    _, cy, cx, size = window
    top, left = cy - size // 2, cx - size // 2
    y1, x1 = top + size, left + size
    if top >= 0 and left >= 0 and y1 <= bounds[0] and x1 <= bounds[1]:
        return (slice(top, y1), slice(left, x1)), (slice(0, size), slice(0, size)), True
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = max(min(y1, bounds[0]), y0), max(min(x1, bounds[1]), x0)
    # A window beside its image sees nothing of it: an empty strip at its own edge.
    rows, columns = ([min(at, size) for at in ends] for ends in ((y0 - top, y1 - top), (x0 - left, x1 - left)))
    place = slice(*rows), slice(*columns)
    return (slice(y0, y1), slice(x0, x1)), place, False


def _beside(rows: slice, columns: slice, size: int) -> Iterator[tuple[slice, slice]]:
    """The parts of a window of ``size`` that lie above, below, left and right of these rows and columns."""
    if rows.start > 0:
        yield slice(0, rows.start), slice(0, size)
    if rows.stop < size:
        yield slice(rows.stop, size), slice(0, size)
    if columns.start > 0:
        yield rows, slice(0, columns.start)
    if columns.stop < size:
        yield rows, slice(columns.stop, size)
