"""Decoded segmentation data, held as uint8 tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

VOID = 255
MAX_CLASSES = 255

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, items done, items in all)."""


@dataclass(frozen=True)
class SegmentationData:
    """Images and label maps of one split, padded to the largest image.

    Shapes: ``images`` uint8 (N, 3, H, W), RGB; ``labels`` uint8 (N, H, W), 255 = void; ``sizes`` int64 (N, 2),
    the true height and width of every image, which lies in the upper left corner; ``unlabelled`` uint8
    (M, 3, H, W) or None, further images for proxy tasks. Outside an image: pixels 0, labels 255.
    """

    images: Tensor
    labels: Tensor
    sizes: Tensor
    names: list[str]
    classes: tuple[str, ...]
    unlabelled: Tensor | None = None

    def __post_init__(self) -> None:
        count, channels, height, width = self.images.shape
        assert channels == 3 and self.images.dtype == torch.uint8, "images are uint8 (N, 3, H, W)"
        assert self.labels.shape == (count, height, width) and self.labels.dtype == torch.uint8
        assert self.sizes.shape == (count, 2) and self.sizes.dtype == torch.int64
        assert len(self.names) == count

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_classes(self) -> int:
        """Number of classes; labels are 0 .. num_classes - 1, or 255."""
        return len(self.classes)

    @property
    def nbytes(self) -> int:
        """Bytes held by the tensors."""
        extra = 0 if self.unlabelled is None else self.unlabelled.numel()
        return self.images.numel() + self.labels.numel() + extra

    def to(self, device: torch.device | str) -> SegmentationData:
        """The same data with its tensors on ``device``."""
        extra = None if self.unlabelled is None else self.unlabelled.to(device)
        return replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            sizes=self.sizes.to(device),
            unlabelled=extra,
        )

    def proxy_view(self) -> SegmentationData:
        """All images without their labels: what a proxy task may see (labelled images first)."""
        height, width = self.images.shape[2:]
        images, sizes, names = self.images, self.sizes, list(self.names)
        if self.unlabelled is not None and len(self.unlabelled):
            extra = len(self.unlabelled)
            full = torch.tensor([[height, width]], dtype=torch.int64, device=sizes.device)
            images = torch.cat([images, self.unlabelled])
            sizes = torch.cat([sizes, full.expand(extra, 2)])
            names += [f"unlabelled_{i:05d}" for i in range(extra)]
        labels = torch.full((1, 1, 1), VOID, dtype=torch.uint8, device=images.device)
        return SegmentationData(images, labels.expand(len(names), height, width), sizes, names, self.classes)
