"""Supervised classification of whole images: the pre-training that self-supervised tasks are compared with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config.schema import ProxyConfig
from engine.data.pipeline import normalise
from engine.models import Backbone
from engine.models.heads import init_head
from engine.proxies.task import Task


class ImageClassifier(Task):
    """Mean of the backbone's last map, a hidden layer, scores.

    The mean over the map is plain arithmetic, so that its backward pass is deterministic on CUDA too.
    """

    def __init__(self, backbone: Backbone, hidden: int, outputs: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.hidden = nn.Linear(backbone.feature_channels, hidden)
        self.output = nn.Linear(hidden, outputs)
        init_head(self.hidden, None, generator)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def scores(self, rgb: Tensor) -> Tensor:
        """(B, outputs) from uint8 (B, 3, h, w)."""
        maps = self.backbone(normalise(rgb, "gray" if self.backbone.in_channels == 1 else "rgb"))
        hidden = F.dropout(F.relu(self.hidden(maps.mean(dim=(2, 3)))), 0.5, self.training)
        scores: Tensor = self.output(hidden)
        return scores


def classify(scores: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy in float32, and the share of right answers."""
    loss = F.cross_entropy(scores.float(), target)
    return loss, {"accuracy": (scores.detach().argmax(dim=1) == target).float().mean()}


class Classification(ImageClassifier):
    """Names the class of an image, the folder it lies in."""

    def __init__(
        self, config: ProxyConfig, backbone: Backbone, generator: torch.Generator | None = None, classes: int = 0
    ) -> None:
        super().__init__(backbone, config.head_channels, classes, generator)

    def forward(
        self, rgb: Tensor, generator: torch.Generator, targets: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and accuracy of images uint8 (B, 3, h, w) with classes int64 (B,)."""
        assert targets is not None, "classification needs the classes"
        return classify(self.scores(rgb), targets)
