"""How much of a patch is of the class that it stands for (release: ``computeOverlapGeneral``).

Counted at a grid of points, not at every pixel: a window of 256 has 65,536 pixels, and counts of all classes at all
pixels would take a gigabyte for a batch of images. A grid costs the same for every window, is one indexed read for
all of them, and gives a CPU and a GPU the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

GRID = 16
"""Points a side. A window of that side is read exactly; in another one a level border is misplaced by 1/32 at most."""


def class_share(label_maps: Tensor, image: Tensor, cy: Tensor, cx: Tensor, size: Tensor, label: Tensor) -> Tensor:
    """Share of windows ``[c - size/2, c + size/2)`` whose pixels have ``label``, 0-1, a multiple of 1 / GRID^2.

    What lies outside the image is of no class, and neither are void pixels: they count against every class. The
    device is not waited for.

    Args:
        label_maps: (B, H, W) of integers.
        image: number of each window's image; this and all that follow are integers of shapes that broadcast.
        cy: row of the centre.
        cx: column of the centre.
        size: side, even, pixels.
        label: class looked for.

    Returns:
        float32 of their common shape.
    """
    _, height, width = label_maps.shape
    cells = 2 * torch.arange(GRID, device=size.device) + 1
    within = size[..., None] * cells // (2 * GRID) - size[..., None] // 2
    ys, xs = cy[..., None] + within, cx[..., None] + within
    rows = (image[..., None] * height + ys.clamp(0, height - 1)) * width
    found = label_maps.flatten()[rows[..., :, None] + xs.clamp(0, width - 1)[..., None, :]]
    in_rows, in_columns = (ys >= 0) & (ys < height), (xs >= 0) & (xs < width)
    same = (found == label.to(found.dtype)[..., None, None]) & in_rows[..., :, None] & in_columns[..., None, :]
    return same.flatten(-2).sum(dim=-1).float() / GRID**2
