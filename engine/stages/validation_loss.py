"""The loss of the evaluated split, by which ``segment.keep_best: loss`` compares: one number for the whole set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engine import dist
from engine.data.values import VOID


class ValidationLoss:
    """Mean of -log p over all labelled pixels of the split, with p the softmax of a pixel's own class.

    Whatever ``segment.loss`` is: no class weighs more, no target is smoothed, and nothing is left out but void pixels.
    Each pixel counts once, so images count by their labelled pixels. Computed in float32, added in float64 within
    each image, and exactly from there on: images are not added in another order where several processes share them.

    Args:
        images: number of images of the split.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self._numbers: list[int] = []
        self._parts: list[Tensor] = []

    def add(self, numbers: Sequence[int], scores: Tensor, labels: Tensor) -> None:
        """Take in some images; waits for no GPU.

        Args:
            numbers: which images of the split they are.
            scores: class scores (B, K, H, W), of any precision.
            labels: (B, H, W), 255 = void.
        """
        void = labels == VOID
        own = torch.where(void, 0, labels.long())
        lacking = -scores.float().log_softmax(dim=1).gather(1, own[:, None])[:, 0]
        sums = torch.where(void, 0, lacking.double()).sum(dim=(1, 2))
        self._parts.append(torch.stack([sums, (~void).sum(dim=(1, 2)).double()]))
        self._numbers += numbers

    def mean(self) -> float:
        """The loss over all processes, which all of them have to ask for; NaN without a labelled pixel."""
        found = torch.zeros(2, self.images, dtype=torch.float64)
        if self._parts:
            found[:, self._numbers] = torch.cat(self._parts, dim=1).cpu()
        sums, counts = dist.all_reduce_sum(found).tolist()
        total = math.fsum(counts)
        # Of NaN and infinities ``fsum`` makes an error of opposite ones; the mean is none in any case.
        return math.fsum(sums) / total if total and all(map(math.isfinite, sums)) else math.nan
