"""MoCo v2 as a proxy task: two views of an image among the keys of many others (He et al. 2020, Chen et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.config.schema import ProxyConfig
from engine.models import Backbone
from engine.proxies.contrast import Contrast
from engine.proxies.info_nce import info_nce
from engine.proxies.projection import Projected


class MoCo(Contrast):
    """One vector an image: the mean of the last map through a perceptron of one hidden layer."""

    def __init__(
        self, config: ProxyConfig, backbone: Backbone, generator: torch.Generator | None = None, classes: int = 0
    ) -> None:
        super().__init__(config, backbone, generator, dense=False)

    def compare(self, query: Projected, key: Projected) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, and how often the key of the same image was the nearest."""
        own, other = (F.normalize(part.whole, dim=1) for part in (query, key))
        loss, accuracy = info_nce(own, other, self.negatives(0), self.config.temperature)
        return loss, {"accuracy": accuracy}

    def enqueued(self, key: Projected) -> tuple[Tensor, ...]:
        return (F.normalize(key.whole, dim=1),)
