"""Heads that read several maps of a backbone (DeepLabv3+, UPerNet, a plain pyramid), and the linear one.

Shapes: B batch, K classes, h and w cells of a map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config.schema import ModelConfig
from engine.models.dense_heads import LAST, Aspp, DenseSegmenter, convolution, start_at_zero, upsample
from engine.models.resampling import average
from engine.models.vgg import Backbone

LOW_CHANNELS = 48
"""To which DeepLabv3+ reduces the fine map (Chen et al. 2018)."""
BINS = (1, 2, 3, 6)
"""Sides of the pooled maps of UPerNet's pyramid pooling (Zhao et al. 2017)."""
RESCALED = (2, 1, 0, -1)
"""Doublings of four maps of one scale that make a pyramid of them (BEiT, Bao et al. 2022)."""


class LinearHead(nn.Conv2d):
    """Scores 1x1 from the last map, without a hidden layer: a linear classifier of each cell."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__(inputs, classes, 1)
        start_at_zero(self)


class Rescaled(nn.Module):
    """Four maps of one scale, as a vision transformer's, to 4, 2, 1 and 1/2 times their size.

    Doubled by 2x2 transposed convolutions with stride 2, batch normalisation and GELU between two of them; halved by
    pooling (BEiT).
    """

    def __init__(self, channels: Sequence[int], generator: torch.Generator | None) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        for width, doublings in zip(channels, RESCALED, strict=True):
            step = nn.Sequential()
            for number in range(doublings):
                step.extend([nn.BatchNorm2d(width), nn.GELU()] if number else [])
                step.append(_doubling(width, generator))
            self.steps.append(step)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C, h, w) of four sizes, the largest first."""
        found = [step(features) for step, features in zip(self.steps, maps, strict=True)]
        return [*found[:-1], F.max_pool2d(found[-1], 2, ceil_mode=True)]


def _doubling(width: int, generator: torch.Generator | None) -> nn.ConvTranspose2d:
    conv = nn.ConvTranspose2d(width, width, 2, 2)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class PyramidHead(nn.Module):
    """What heads on several maps share: maps of one scale are rescaled first.

    Args:
        backbone: its ``stage_maps`` are read, fine ones first.
    """

    def __init__(self, backbone: Backbone, generator: torch.Generator | None) -> None:
        super().__init__()
        self.channels = [backbone.hyper_channels[number] for number in backbone.stage_maps]
        scales = {backbone.hyper_scales[number] for number in backbone.stage_maps}
        one_scale = len(scales) == 1 and len(self.channels) == len(RESCALED)
        self.rescaled = Rescaled(self.channels, generator) if one_scale else None

    def maps(self, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        """The maps, from fine to coarse."""
        return maps if self.rescaled is None else self.rescaled(maps)


class DeepLabV3PlusHead(nn.Module):
    """Atrous spatial pyramid on the last map, enlarged, beside the finest map reduced to 48 channels; two 3x3
    convolutions on both, dropout, scores 1x1 (Chen et al. 2018; plain convolutions, not separable ones)."""

    def __init__(
        self, backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        width = config.head_channels
        self.aspp = Aspp(backbone, config, generator)
        self.low = convolution(backbone.hyper_channels[backbone.stage_maps[0]], LOW_CHANNELS, 1, 1, generator)
        self.fuse = nn.Sequential(
            convolution(width + LOW_CHANNELS, width, 3, 1, generator), convolution(width, width, 3, 1, generator)
        )
        self.dropout = config.dropout
        self.output = nn.Conv2d(width, classes, 1)
        start_at_zero(self.output)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Finest and last map to scores (B, K, h, w) of the finest."""
        fine, last = maps
        low = self.low(fine)
        coarse = upsample(self.aspp(last), *low.shape[2:])
        fused = self.fuse(torch.cat([coarse.to(low.dtype), low], dim=1))
        scores: Tensor = self.output(F.dropout(fused, self.dropout, self.training))
        return scores


class PooledPyramid(nn.Module):
    """A map beside its means over 1, 2 x 2, 3 x 3 and 6 x 6 parts, each 1x1, enlarged; joined 3x3 (PSPNet, Zhao et al.
    2017). The mean of the whole map is not normalised over the batch: one value per image is too little for that."""

    def __init__(self, inputs: int, width: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.whole = nn.Conv2d(inputs, width, 1)
        nn.init.kaiming_normal_(self.whole.weight, nonlinearity="relu", generator=generator)
        assert self.whole.bias is not None
        nn.init.zeros_(self.whole.bias)
        self.parts = nn.ModuleList(convolution(inputs, width, 1, 1, generator) for _ in BINS[1:])
        self.join = convolution(inputs + len(BINS) * width, width, 3, 1, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, width, h, w)."""
        found = [x, F.relu(self.whole(x.mean(dim=(2, 3), keepdim=True))).expand(-1, -1, *x.shape[2:]).to(x.dtype)]
        for side, part in zip(BINS[1:], self.parts, strict=True):
            found.append(upsample(part(average(x, side)), *x.shape[2:]).to(x.dtype))
        joined: Tensor = self.join(torch.cat(found, dim=1))
        return joined


class UPerNetHead(PyramidHead):
    """Pyramid pooling on the coarsest map, top-down sums with the finer ones, 3x3 on each of these; all enlarged to the
    finest and joined 3x3; dropout, scores 1x1 (Xiao et al. 2018)."""

    def __init__(
        self, backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None
    ) -> None:
        super().__init__(backbone, generator)
        width = config.head_channels
        *finer, coarsest = self.channels
        self.pooled = PooledPyramid(coarsest, width, generator)
        self.lateral = nn.ModuleList(convolution(inputs, width, 1, 1, generator) for inputs in finer)
        self.smooth = nn.ModuleList(convolution(width, width, 3, 1, generator) for _ in finer)
        self.join = convolution(width * len(self.channels), width, 3, 1, generator)
        self.dropout = config.dropout
        self.output = nn.Conv2d(width, classes, 1)
        start_at_zero(self.output)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps from fine to coarse to scores (B, K, h, w) of the finest."""
        *finer, coarsest = self.maps(maps)
        levels = top_down([conv(x) for conv, x in zip(self.lateral, finer, strict=True)], self.pooled(coarsest))
        smooth = [*(conv(x) for conv, x in zip(self.smooth, levels[:-1], strict=True)), levels[-1]]
        joined = self.join(torch.cat([enlarged(x, smooth[0]) for x in smooth], dim=1))
        scores: Tensor = self.output(F.dropout(joined, self.dropout, self.training))
        return scores


class PlainPyramidHead(PyramidHead):
    """A feature pyramid (Lin et al. 2017): 1x1 on each map, top-down sums, 3x3 on each; enlarged to the finest, summed,
    dropout, scores 1x1 (as Kirillov et al. 2019 join them)."""

    def __init__(
        self, backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None
    ) -> None:
        super().__init__(backbone, generator)
        width = config.head_channels
        self.lateral = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in self.channels)
        for conv in self.lateral:
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear", generator=generator)
            nn.init.zeros_(conv.bias)
        self.smooth = nn.ModuleList(convolution(width, width, 3, 1, generator) for _ in self.channels)
        self.dropout = config.dropout
        self.output = nn.Conv2d(width, classes, 1)
        start_at_zero(self.output)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps from fine to coarse to scores (B, K, h, w) of the finest."""
        laterals = [conv(x) for conv, x in zip(self.lateral, self.maps(maps), strict=True)]
        levels = top_down(laterals[:-1], laterals[-1])
        smooth = [conv(x) for conv, x in zip(self.smooth, levels, strict=True)]
        total = smooth[0]
        for x in smooth[1:]:
            total = total + enlarged(x, total)
        scores: Tensor = self.output(F.dropout(total, self.dropout, self.training))
        return scores


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """A map in the size and the precision of another."""
    return upsample(x, *like.shape[2:]).to(like.dtype) if x.shape[2:] != like.shape[2:] else x


def top_down(finer: Sequence[Tensor], coarsest: Tensor) -> list[Tensor]:
    """Each map plus what comes from above it, enlarged; from fine to coarse, the coarsest as it is."""
    found = [coarsest]
    for x in reversed(finer):
        found.insert(0, x + enlarged(found[0], x))
    return found


def linear(
    backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None = None
) -> DenseSegmenter:
    """A linear classifier of the last map's cells, which a vision transformer has normalised."""
    return DenseSegmenter(backbone, classes, LinearHead(backbone.feature_channels, classes), align_corners=False)


def deeplabv3plus(
    backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None = None
) -> DenseSegmenter:
    """``aspp`` with finer borders."""
    head = DeepLabV3PlusHead(backbone, classes, config, generator)
    return DenseSegmenter(backbone, classes, head, align_corners=False, reads=(backbone.stage_maps[0], LAST))


def upernet(
    backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None = None
) -> DenseSegmenter:
    """The usual head of ConvNeXt, Swin and vision transformers."""
    head = UPerNetHead(backbone, classes, config, generator)
    return DenseSegmenter(backbone, classes, head, align_corners=False, reads=backbone.stage_maps)


def pyramid(
    backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None = None
) -> DenseSegmenter:
    """A light head on every stage."""
    head = PlainPyramidHead(backbone, classes, config, generator)
    return DenseSegmenter(backbone, classes, head, align_corners=False, reads=backbone.stage_maps)
