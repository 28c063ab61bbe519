"""Two random views of every image, as MoCo v2 makes them (Chen et al. 2020), on the device of the images.

A view is cut out at random, resized, mirrored, changed in colour, made grey, blurred; each with its own probability
and for each image apart. All random numbers of a batch are drawn at once, so that they do not depend on portions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.proxies.blur import blur
from engine.proxies.colours import jitter, luma

SMALLEST_AREA = 0.2
WIDEST = math.log(4 / 3)
"""The aspect ratio lies between 3/4 and 4/3, uniform in its logarithm."""
JITTERED, GRAYED, BLURRED, MIRRORED = 0.8, 0.2, 0.5, 0.5
"""Probabilities."""
BLUR = (0.1 / 224, 2.0 / 224)
"""Deviations of the blur as shares of the side: 0.1 to 2 pixels of the 224 they were chosen for."""
DRAWS = 13


def two_views(images: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 (B, 2, 3, s, s) from square images uint8 (B, 3, s, s)."""
    shape = (2, DRAWS, len(images))
    draws = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
    values = images.to(torch.float32) / 255
    views = [view(values, draw) for draw in draws.to(images.device, torch.float32)]
    return (255 * torch.stack(views, dim=1)).round_().clamp_(0, 255).to(torch.uint8)


def view(images: Tensor, draw: Tensor) -> Tensor:
    """One view of images (B, 3, s, s) in [0, 1]. ``draw``: uniform (DRAWS, B)."""
    images = cut_out(images, draw[:5])
    images = _choose(draw[5] < JITTERED, jitter(images, draw[6:10]), images)
    images = _choose(draw[10] < GRAYED, luma(images).expand_as(images), images)
    least, most = (share * images.shape[-1] for share in BLUR)
    return _choose(draw[11] < BLURRED, blur(images, least + (most - least) * draw[12], most), images)


def cut_out(images: Tensor, draw: Tensor) -> Tensor:
    """A random rectangle of each image, resized to the whole and perhaps mirrored: bilinear, half-pixel centres.

    Its area is 0.2 to 1 of the image's. Where a rectangle does not fit it is cut down to the image's side; torchvision
    draws again up to ten times instead.

    Args:
        draw: uniform (5, B), for area, aspect ratio, row, column, mirroring.
    """
    area, aspect = SMALLEST_AREA + (1 - SMALLEST_AREA) * draw[0], torch.exp(WIDEST * (2 * draw[1] - 1))
    height, width = ((area * ratio).sqrt().clamp(max=1) for ratio in (1 / aspect, aspect))
    centre_y, centre_x = ((1 - side) * (2 * place - 1) for side, place in ((height, draw[2]), (width, draw[3])))
    mirrored, zero = torch.where(draw[4] < MIRRORED, -width, width), torch.zeros_like(width)
    rows = torch.stack([mirrored, zero, centre_x, zero, height, centre_y], dim=1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _choose(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], changed, images)
