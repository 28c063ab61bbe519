"""What the decoded label maps of a split hold."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.data.dataset import SegmentationData
from engine.data.supervision import Labels

MOST_PIXELS = 2**31
"""More label pixels than these are not counted one by one: some of the images speak for all of them."""
_CHUNK = 2**24


def count_labels(data: SegmentationData, split: str) -> Labels:
    """Count a split; of one of more than ``MOST_PIXELS`` images at equal distances.

    Args:
        data: decoded; may be mapped from a file or lie on a GPU.
        split: its name, for sentences.
    """
    area = max(data.labels[0].numel(), 1) if len(data) else 1
    looked_at = min(len(data), max(MOST_PIXELS // area, 1))
    chosen = torch.arange(looked_at) * len(data) // max(looked_at, 1)
    counts = torch.zeros(256, dtype=torch.int64)
    for part in chosen.split(max(_CHUNK // area, 1)):
        counts += _histogram(data.labels, part)
    own = int(data.sizes.cpu()[chosen].prod(dim=1).sum())
    pixels = tuple(counts[: data.num_classes].tolist())
    return Labels(split, pixels, own - sum(pixels), looked_at, len(data))


def _histogram(labels: Tensor, indices: Tensor) -> Tensor:
    part = labels[int(indices[0]) : int(indices[-1]) + 1]
    if len(part) != len(indices):
        part = labels[indices.to(labels.device)]
    return torch.bincount(part.reshape(-1), minlength=256).cpu()
