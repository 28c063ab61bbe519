"""From a source to tensors in memory."""

from __future__ import annotations

import numpy as np
import torch

from engine.data.dataset import SegmentationData
from engine.data.source import Source, decode
from engine.data.values import Progress


def assemble(source: Source, images: torch.Tensor, labels: torch.Tensor, *, mapped: bool = False) -> SegmentationData:
    """The data of tensors that ``decode`` has filled."""
    count = len(source.names)
    return SegmentationData(
        images=images[:count],
        labels=labels,
        sizes=torch.tensor(source.sizes, dtype=torch.int64),
        names=list(source.names),
        classes=source.classes,
        unlabelled=images[count:] if source.unlabelled else None,
        mapped=mapped,
    )


def load(source: Source, progress: Progress | None = None) -> SegmentationData:
    """Decode into memory.

    Raises:
        DataError: a file is unreadable or does not fit its partner.
    """
    images = np.zeros(source.image_shape, np.uint8)
    labels = np.empty(source.label_shape, np.uint8)
    decode(source, images, labels, progress)
    return assemble(source, torch.from_numpy(images), torch.from_numpy(labels))
