"""The choice of windows that do not overlap too much, on a CPU: with a mask of pixels, image by image (PAPER 1.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def choose_windows(
    edges: Sequence[Tensor], area: Tensor, wanted: int, bounds: Sequence[int], overlap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Greedy choice in candidate order.

    Args:
        edges: y0, y1, x0, x1 of every candidate, int64 (B, K) each, inside of the image.
        area: what covered pixels are divided by, (B, K).
        wanted: windows to choose from each image.
        bounds: (H, W) of the images.
        overlap: covered share beyond which a candidate is dropped.

    Returns:
        indices (B, wanted) of the chosen candidates, and per image the numbers rejected and taken back, (B,).
    """
    covered = np.zeros(tuple(bounds), dtype=np.bool_)
    chosen, rejected, topped = [], [], []
    for image in zip(*(part.tolist() for part in (*edges, area)), strict=True):
        covered.fill(False)
        kept: list[int] = []
        dropped: list[int] = []
        for number, (y0, y1, x0, x1, whole) in enumerate(zip(*image, strict=True)):
            window = covered[y0:y1, x0:x1]
            if np.count_nonzero(window) / whole > overlap:
                dropped.append(number)
                continue
            kept.append(number)
            if len(kept) == wanted:
                break
            window.fill(True)
        chosen.append((kept + dropped)[:wanted])
        rejected.append(len(dropped))
        topped.append(wanted - len(kept))
    return torch.tensor(chosen), torch.tensor(rejected), torch.tensor(topped)
