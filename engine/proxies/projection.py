"""From images to the vectors that are compared: a backbone and projection heads, what is there twice in a contrast."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.data.pipeline import normalise
from engine.models import Backbone
from engine.models.heads import init_head


class Projected(NamedTuple):
    """What a network makes of B images. Vectors are not of unit length.

    Attributes:
        whole: (B, D), one vector an image.
        maps: (B, N, C), the backbone's last map, cell by cell.
        cells: (B, N, D), one vector a cell; of no cells if the network has no head for them.
    """

    whole: Tensor
    maps: Tensor
    cells: Tensor


class Projector(nn.Module):
    """Two layers with a ReLU between them, for vectors (..., inputs): a perceptron, or 1x1 convolutions."""

    def __init__(self, inputs: int, hidden: int, outputs: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        init_head(self.hidden, None, generator)
        init_head(self.output, None, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(..., outputs)."""
        values: Tensor = self.output(F.relu(self.hidden(x)))
        return values


class Projection(nn.Module):
    """A backbone with a head for whole images and, if asked for, one for cells."""

    def __init__(
        self, backbone: Backbone, hidden: int, outputs: int, generator: torch.Generator | None, *, dense: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.whole = Projector(backbone.feature_channels, hidden, outputs, generator)
        self.cells = Projector(backbone.feature_channels, hidden, outputs, generator) if dense else None

    def forward(self, rgb: Tensor) -> Projected:
        """Of images uint8 (B, 3, h, w). The mean over the map is plain arithmetic, so its gradient is deterministic."""
        maps = self.backbone(normalise(rgb, "gray" if self.backbone.in_channels == 1 else "rgb"))
        maps = maps.flatten(2).transpose(1, 2)
        whole = self.whole(maps.mean(dim=1))
        cells = whole[:, None][:, :0] if self.cells is None else self.cells(maps)
        return Projected(whole.float(), maps.float(), cells.float())


class OnlyBackbone(nn.Module):
    """What a contrast hands on."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
