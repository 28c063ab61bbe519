"""Rotation as a proxy task: which of four quarter turns was made? (Gidaris et al. 2018)"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.config.schema import ProxyConfig
from engine.models import Backbone
from engine.proxies.classification import ImageClassifier, classify

TURNS = 4


class Rotation(ImageClassifier):
    """Every image is shown in all four positions, as the authors found best."""

    def __init__(
        self, config: ProxyConfig, backbone: Backbone, generator: torch.Generator | None = None, classes: int = 0
    ) -> None:
        super().__init__(backbone, config.head_channels, TURNS, generator)

    def forward(
        self, rgb: Tensor, generator: torch.Generator, targets: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and accuracy over the 4 B turned copies of square images uint8 (B, 3, s, s)."""
        turned = torch.cat([rgb.rot90(turns, (2, 3)) for turns in range(TURNS)])
        answer = torch.arange(TURNS, device=rgb.device).repeat_interleave(len(rgb))
        return classify(self.scores(turned), answer)
