"""Jigsaw as a proxy task: in which order were nine tiles shuffled? (Noroozi & Favaro 2016)"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config.schema import ProxyConfig
from engine.data.pipeline import normalise
from engine.models import Backbone
from engine.models.heads import init_head
from engine.proxies.classification import classify
from engine.proxies.task import Task

GRID = 3
TILES = GRID * GRID
WIDER = 4
"""fc7 is four times as wide as fc6 (1024 and 4096 in the paper)."""


def permutation_set(count: int, tiles: int = TILES) -> NDArray[np.int64]:
    """``count`` permutations (count, tiles) that differ in as many places as possible.

    The authors' greedy rule: each next permutation has the largest total Hamming distance to those chosen. Many tie;
    of these the one farthest from its nearest is taken, so that no two are nearly alike, then the lexically first. The
    authors draw the first one at random; here it is the lexically second, so that the set needs no seed.

    Raises:
        ValueError: there are not so many.
    """
    everything = np.array(list(itertools.permutations(range(tiles))), dtype=np.int8)
    if not 1 <= count <= len(everything):
        raise ValueError(f"{tiles} tiles have {len(everything)} permutations, {count} were asked for")
    total = np.zeros(len(everything), np.int32)
    nearest = np.full(len(everything), tiles, np.int32)
    chosen, index = [], min(1, len(everything) - 1)
    for _ in range(count):
        chosen.append(index)
        distance = (everything != everything[index]).sum(axis=1, dtype=np.int32)
        total += distance
        np.minimum(nearest, distance, out=nearest)
        total[index] = -1 - count * tiles
        index = int((total * (tiles + 1) + nearest).argmax())
    return everything[chosen].astype(np.int64)


class Jigsaw(Task):
    """Nine tiles through one shared backbone, a layer for each tile, a layer for all, scores of the permutations.

    A crop is divided into 3 x 3 cells. A tile is ``proxy.gap`` pixels smaller than its cell (at most half a cell) and
    lies at a random place of it. The gap between neighbours is therefore ``proxy.gap`` on average, from none to twice
    that, so that edges seldom continue and give little away. Each tile is normalised by its own mean and deviation, so
    that light and colour drifts give nothing away. Tiles are resized to ``proxy.tile``.
    """

    def __init__(
        self, config: ProxyConfig, backbone: Backbone, generator: torch.Generator | None = None, classes: int = 0
    ) -> None:
        super().__init__()
        self.config, self.backbone = config, backbone
        self.permutations: Tensor
        self.register_buffer("permutations", torch.from_numpy(permutation_set(config.permutations)))
        with torch.no_grad():
            was = backbone.training
            features = backbone.eval().embed(torch.zeros(1, backbone.in_channels, config.tile, config.tile)).shape[1]
            backbone.train(was)
        self.fc6 = nn.Linear(features, config.head_channels)
        self.fc7 = nn.Linear(TILES * config.head_channels, WIDER * config.head_channels)
        self.output = nn.Linear(WIDER * config.head_channels, config.permutations)
        for layer in (self.fc6, self.fc7):
            init_head(layer, None, generator)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(
        self, rgb: Tensor, generator: torch.Generator, targets: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and accuracy of images uint8 (B, 3, s, s), each shuffled by a permutation of its own."""
        tiles = self.tiles(rgb, generator)
        draw = torch.rand(len(rgb), generator=generator, device=generator.device, dtype=torch.float64).to(rgb.device)
        answer = (draw * len(self.permutations)).long().clamp(max=len(self.permutations) - 1)
        image = torch.arange(len(rgb), device=rgb.device)[:, None]
        return classify(self.scores(tiles[image, self.permutations[answer]]), answer)

    def scores(self, tiles: Tensor) -> Tensor:
        """Scores of the permutations (B, permutations) from tiles (B, 9, C, tile, tile) in the order shown."""
        each = F.relu(self.fc6(self.backbone.embed(tiles.flatten(0, 1))))
        hidden = F.relu(self.fc7(F.dropout(each, 0.5, self.training).view(len(tiles), -1)))
        scores: Tensor = self.output(F.dropout(hidden, 0.5, self.training))
        return scores

    def tiles(self, rgb: Tensor, generator: torch.Generator) -> Tensor:
        """Tiles of every image in reading order: float32 (B, 9, C, tile, tile), each of mean 0 and deviation 1."""
        images = normalise(rgb, "gray" if self.backbone.in_channels == 1 else "rgb")
        batch, _, height, width = images.shape
        cell = min(height, width) // GRID
        gap = min(self.config.gap, cell // 2)
        side = cell - gap
        draw = torch.rand((2, batch, TILES), generator=generator, device=generator.device, dtype=torch.float64)
        shift = (draw.to(rgb.device) * (gap + 1)).long().clamp(max=gap)
        number = torch.arange(TILES, device=rgb.device)
        steps = torch.arange(side, device=rgb.device)
        rows = (number // GRID * cell + shift[0])[:, :, None] + steps
        columns = (number % GRID * cell + shift[1])[:, :, None] + steps
        image = torch.arange(batch, device=rgb.device)[:, None, None, None]
        cut = images.permute(0, 2, 3, 1)[image, rows[:, :, :, None], columns[:, :, None, :]].permute(0, 1, 4, 2, 3)
        size = (self.config.tile, self.config.tile)
        tiles = F.interpolate(cut.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
        centred = tiles - tiles.mean(dim=(1, 2, 3), keepdim=True)
        deviation = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return (centred / deviation.clamp(min=1e-3)).view(batch, TILES, *tiles.shape[1:])
