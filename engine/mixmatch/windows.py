"""Patches as they are handed on: square windows in a batch of images, with their labels.

Shapes: N patches in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Patches:
    """Square windows ``[c - size/2, c + size/2)`` in a batch of images.

    ``image``, ``cy``, ``cx``, ``size`` and ``label`` are int64 (N,); ``size`` is even, in pixels. Those that
    ``sample_patches`` draws stand in image order: kept candidates, then those taken back, then background.
    ``padding`` and ``purity`` are float32 (N,), shares of the window, 0-1: what lies outside its image, and what has
    its label (``engine.mixmatch.purity``). ``overlap_rejections`` and ``topped_up`` are int64 scalars: candidates
    dropped for overlap before enough were found, and how many of those were taken back because too few were left.
    These four say nothing (0) unless given. ``per_image``: if above 0, they stand in image order, and so many are of
    each image that has any; a GPU need not be asked then.
    """

    image: Tensor
    cy: Tensor
    cx: Tensor
    size: Tensor
    label: Tensor
    padding: Tensor = field(default_factory=lambda: torch.zeros(()))
    overlap_rejections: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    topped_up: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))
    purity: Tensor = field(default_factory=lambda: torch.zeros(()))
    per_image: int = 0

    def __len__(self) -> int:
        return len(self.image)

    def part(self, rows: slice | Tensor) -> Patches:
        """Some of them; what the sampling of all came to is left out."""
        return Patches(self.image[rows], self.cy[rows], self.cx[rows], self.size[rows], self.label[rows])


def join(parts: list[Patches], images: int) -> Patches:
    """Patches of several batches of ``images`` images each, as if they were one batch."""
    if len(parts) == 1:
        return parts[0]
    return Patches(
        image=torch.cat([part.image + number * images for number, part in enumerate(parts)]),
        cy=torch.cat([part.cy for part in parts]),
        cx=torch.cat([part.cx for part in parts]),
        size=torch.cat([part.size for part in parts]),
        label=torch.cat([part.label for part in parts]),
        padding=torch.cat([part.padding for part in parts]),
        overlap_rejections=torch.stack([part.overlap_rejections for part in parts]).sum(),
        topped_up=torch.stack([part.topped_up for part in parts]).sum(),
        purity=torch.cat([part.purity.expand(len(part)) for part in parts]),
    )
