"""Random colours of images (B, 3, H, W) in [0, 1]: brightness, contrast, saturation, hue, and none at all.

Strengths and their meaning as in MoCo v2 (Chen et al. 2020, after SimCLR); torchvision draws the order of the four
anew for each image, here it is always the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.proxies.colorization import hue_and_chroma

STRENGTH, HUE_STRENGTH = 0.4, 0.1
"""Largest change of brightness, contrast and saturation, and of the hue (a full turn is 1)."""
LUMA = (0.299, 0.587, 0.114)
FIFTH, THIRD, FIRST = 5.0, 3.0, 1.0
"""Sixths of the hue circle by which red, green and blue are apart."""


def luma(images: Tensor) -> Tensor:
    """Grey values (B, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    gray: Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return gray


def jitter(images: Tensor, draw: Tensor) -> Tensor:
    """Change of all four. ``draw``: uniform (4, B), for brightness, contrast, saturation and hue."""
    bright, contrast, saturation = (_each(1 + STRENGTH * (2 * one - 1)) for one in draw[:3])
    images = (bright * images).clamp(0, 1)
    images = _blend(images, luma(images).mean(dim=(2, 3), keepdim=True), contrast)
    images = _blend(images, luma(images), saturation)
    return turn_hue(images, HUE_STRENGTH * (2 * draw[3] - 1))


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """The hue moved by ``turn`` (B,), in full turns; value and chroma stay."""
    hue, chroma = hue_and_chroma(images.movedim(1, -1))
    high, sixths = images.amax(dim=1), 6 * (hue + turn[:, None, None])
    rotated = [torch.remainder(sixths + start, 6) for start in (FIFTH, THIRD, FIRST)]
    return torch.stack([high - chroma * torch.minimum(at, 4 - at).clamp(0, 1) for at in rotated], dim=1)


def _blend(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return (other + share * (images - other)).clamp(0, 1)


def _each(values: Tensor) -> Tensor:
    """One number (B,) for each image."""
    return values[:, None, None, None]
