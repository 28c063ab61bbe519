"""From crops and windows in them to what the network reads."""

from __future__ import annotations

import torch
from torch import Tensor

from engine import host
from engine.config.schema import InputName
from engine.data.pipeline import GRAY_MEAN, OUTSIDE, colour_constants, normalise
from engine.mixmatch.host_crops import cut_windows
from engine.mixmatch.patches import crop_patches
from engine.mixmatch.windows import Patches


def patch_inputs(images: Tensor, patches: Patches, side: int, input: InputName, into: Buffer) -> Tensor:
    """``crop_patches(normalise(images, input), patches, side, OUTSIDE[input])``; a CPU computes no more than that.

    Args:
        images: uint8 (B, 3, H, W).
        patches: windows in them.
        side: of the patches, pixels.
        input: what the network reads.
        into: gives the memory of the result on a CPU; it is used again at the next call with the same buffer.
    """
    if not host.on_host(images):
        return crop_patches(normalise(images, input), patches, side, OUTSIDE[input])
    if input == "gray":
        total = images.to(torch.int16).sum(dim=1, keepdim=True, dtype=torch.int16)
        out, affine = into.take((len(patches), 1, side, side)), (torch.tensor([1 / 765.0]), torch.tensor([-GRAY_MEAN]))
        return cut_windows(total, patches, out, torch.zeros(1), affine)
    mean, scale = (constant.flatten() for constant in colour_constants(images.device, input))
    return cut_windows(images, patches, into.take((len(patches), 3, side, side)), mean, (scale, -mean * scale))


class Buffer:
    """Memory that is used again: fresh memory costs a CPU as much as what is written to it."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def take(self, shape: tuple[int, int, int, int]) -> Tensor:
        """float32 of a shape (N, C, H, W), channels last; what it holds is not defined."""
        count, channels, height, width = shape
        needed = count * channels * height * width
        if self._memory.numel() < needed:
            self._memory = torch.empty(needed)
        return self._memory[:needed].view(count, height, width, channels).permute(0, 3, 1, 2)
