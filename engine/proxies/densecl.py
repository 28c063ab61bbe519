"""DenseCL as a proxy task: MoCo's contrast of images, and the same for the cells of their maps (Wang et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.config.schema import ProxyConfig
from engine.models import Backbone
from engine.proxies.contrast import Contrast
from engine.proxies.info_nce import info_nce
from engine.proxies.projection import Projected


def corresponding(query_maps: Tensor, key_maps: Tensor) -> Tensor:
    """For each cell of the query's map the most alike one of the key's, int64 (B, N), by cosine of their features.

    Args:
        query_maps: (B, N, C), features of the backbone, not of a head.
        key_maps: the same of the other view.
    """
    with torch.no_grad(), torch.autocast(query_maps.device.type, enabled=False):
        query, key = (F.normalize(maps, dim=2) for maps in (query_maps, key_maps))
        return (query @ key.transpose(1, 2)).argmax(dim=2)


def pooled(cells: Tensor) -> Tensor:
    """The vector that stands for all cells (B, N, D) of an image as a negative: their mean, of unit length."""
    return F.normalize(cells.mean(dim=1), dim=1)


class DenseCL(Contrast):
    """loss = (1 - w) * contrast of images + w * contrast of cells.

    A cell's positive is the key of the cell that corresponds to it; its negatives are keys of other images, each the
    mean of its cells, in a queue of their own.
    """

    def __init__(
        self, config: ProxyConfig, backbone: Backbone, generator: torch.Generator | None = None, classes: int = 0
    ) -> None:
        super().__init__(config, backbone, generator, dense=True)

    def compare(self, query: Projected, key: Projected) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss, both parts of it, and how often the right key was the nearest, of images and of cells."""
        temperature, weight = self.config.temperature, self.config.dense_weight
        own, other = (F.normalize(part.whole, dim=1) for part in (query, key))
        whole, accuracy = info_nce(own, other, self.negatives(0), temperature)
        match = corresponding(query.maps, key.maps)
        positives = key.cells.gather(1, match[:, :, None].expand_as(key.cells))
        own, other = (F.normalize(part, dim=2).flatten(0, 1) for part in (query.cells, positives))
        dense, dense_accuracy = info_nce(own, other, self.negatives(1), temperature)
        parts = {"loss_global": whole.detach(), "loss_dense": dense.detach()}
        hits = {"accuracy": accuracy, "dense_accuracy": dense_accuracy}
        return (1 - weight) * whole + weight * dense, {**parts, **hits}

    def enqueued(self, key: Projected) -> tuple[Tensor, ...]:
        return F.normalize(key.whole, dim=1), pooled(key.cells)
