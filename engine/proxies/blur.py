"""Gaussian blur of images, each with a width of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def blur(images: Tensor, deviation: Tensor, largest: float) -> Tensor:
    """Images (B, C, H, W) blurred by ``deviation`` (B,), in pixels, all of them at most ``largest``; edges mirrored.

    Sums of shifted copies: no kernel has to be sent anywhere, and every device adds in the same order.
    """
    radius = math.ceil(3 * largest)
    taps = torch.arange(-radius, radius + 1, device=images.device)
    weights = torch.exp(-taps.square() / (2 * deviation.square()[:, None]))
    weights = weights / weights.sum(dim=1, keepdim=True)
    for dim, padding in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded = F.pad(images, padding, mode="reflect")
        shifted = (padded.narrow(dim, shift, images.shape[dim]) for shift in range(2 * radius + 1))
        images = sum(
            (weights[:, shift, None, None, None] * part for shift, part in enumerate(shifted)),
            start=torch.zeros_like(images),
        )
    return images
