"""VGG backbones with batch normalisation: VGG-16 as in the reference release, and a tiny one for CPUs.

Shapes: B batch, C channels, H and W pixels; a map of scale s has about H/s x W/s cells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import RecipeError

FINEST = 4
"""Scale of the finest map of a pyramid, where a backbone has such."""
HyperLayers = list[tuple[Tensor, int]]
"""Feature maps (B, C, h, w) with their scales: pixel (y, x) of the input lies at (y/s, x/s) of the map."""


def xavier_(weight: Tensor, generator: torch.Generator | None = None) -> None:
    """Caffe's default ``xavier`` filler: uniform in +-sqrt(3 / fan_in), the reference's init of every convolution."""
    fan_in = weight[0].numel()
    bound = math.sqrt(3.0 / fan_in)
    with torch.no_grad():
        weight.uniform_(-bound, bound, generator=generator)


class ConvBlock(nn.Module):
    """3x3 convolution, batch normalisation, ReLU.

    Momentum and epsilon as in the reference (Caffe momentum 0.9 is PyTorch's 0.1). The convolution has no bias:
    batch normalisation would cancel it.
    """

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.1)
        xavier_(self.conv.weight, generator)

    def forward(self, x: Tensor) -> Tensor:
        # A convolution of one gray channel cannot tell the memory orders apart and falls back to channels-first.
        values = self.conv(x).contiguous(memory_format=torch.channels_last)
        return F.relu(self.bn(values), inplace=True)


class Backbone(nn.Module):
    """Stages of convolutions with 2x2 max pooling between them.

    Pooling rounds sizes up, as Caffe's does, so that any input of at least one pixel passes.

    Attributes:
        in_channels: 3 for rgb, 1 for gray.
        feature_channels: channels of the last map.
        feature_scale: scale of the last map, pixels per cell.
        hyper_channels: channels of each map that ``hyper`` returns.
        hyper_scales: scale of each of them.
        multiple: pixels of which the sides of its input are a multiple; others are padded to one, see ``padded``.
        earlier_map: which of the maps that ``hyper`` returns is the one of some depth below the last: what an auxiliary
            head reads; counted from the end, so negative.
        head_std: standard deviation that suits the first layer of a hypercolumn head; None = He's rule.
    """

    earlier_map = -2
    multiple = 1
    frozen: list[nn.Module] = []  # noqa: RUF012  (replaced, never changed)

    def __init__(
        self,
        stages: tuple[tuple[int, ...], ...],
        in_channels: int,
        *,
        pool_last: bool,
        head_std: float | None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.feature_channels = stages[-1][-1]
        self.feature_scale = 2 ** (len(stages) if pool_last else len(stages) - 1)
        self.hyper_channels = [in_channels, *(c for stage in stages for c in stage)]
        self.hyper_scales = [1, *(2**number for number, stage in enumerate(stages) for _ in stage)]
        self.earlier_map = -1 - len(stages[-1])  # the last before the last pooling
        self.pool_last = pool_last
        self.head_std = head_std
        self.stages = nn.ModuleList()
        channels = in_channels
        for stage in stages:
            blocks = nn.ModuleList()
            for width in stage:
                blocks.append(ConvBlock(channels, width, generator))
                channels = width
            self.stages.append(blocks)

    def features(self, x: Tensor) -> tuple[HyperLayers, Tensor]:
        """The maps of ``hyper`` and the last map, in one pass, in channels-last memory order.

        That order makes the convolutions faster and lets a hypercolumn read all channels of a pixel at once.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        layers: HyperLayers = [(x, 1)]
        scale = 1
        last = len(self.stages) - 1
        for number, blocks in enumerate(self.stages):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x)
                layers.append((x, scale))
            if number < last or self.pool_last:
                x = F.max_pool2d(x, 2, ceil_mode=True)
                scale *= 2
        return layers, x

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """What has weights, from the input to the last map: a convolution and its normalisation are one layer."""
        return [(block,) for blocks in self.stages for block in blocks.children()]

    def freeze(self, count: int | None) -> None:
        """Train no part of the first ``count`` layers any more, None = of all; from now on.

        Their parameters get no gradient, and what they normalise by stays as it is: they are in evaluation mode always.

        Raises:
            RecipeError: the backbone has no more layers than that.
        """
        layers = [list(self.state_dict())] if count is None else self.layer_keys()
        if count is not None and count >= len(layers):
            raise RecipeError(f"model.freeze {count}: there are {len(layers)} layers, write fewer, or backbone")
        keys = {key for layer in layers[:count] for key in layer}
        for name, parameter in self.named_parameters():
            if name in keys:
                parameter.requires_grad_(False)
        held = {name: [f"{name}.{key}".lstrip(".") for key in part.state_dict()] for name, part in self.named_modules()}
        self.frozen = [self.get_submodule(name) for name, state in held.items() if state and keys.issuperset(state)]
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """As of every module, but for what is frozen."""
        super().train(mode)
        for part in self.frozen:
            nn.Module.train(part, False)
        return self

    def layer_keys(self) -> list[list[str]]:
        """Names of the state of each layer, as ``state_dict`` has them, from the input to the last map."""
        names = {part: name for name, part in self.named_modules()}
        return [[f"{names[part]}.{key}" for part in layer for key in part.state_dict()] for layer in self.layers()]

    def undecayed(self) -> frozenset[str]:
        """Names of parameters, beside biases and normalisations, that weight decay would not suit."""
        return frozenset()

    @property
    def stage_maps(self) -> tuple[int, ...]:
        """Which of the maps that ``hyper`` returns a pyramid is made of: the last of each scale from FINEST on."""
        last = {scale: number for number, scale in enumerate(self.hyper_scales)}
        return tuple(number for scale, number in sorted(last.items()) if scale >= FINEST)

    def padded(self, x: Tensor) -> Tensor:
        """``x`` (B, C, H, W) with zeros below and beside it, up to the next multiple of ``multiple``."""
        below, beside = (-side % self.multiple for side in x.shape[2:])
        return F.pad(x, (0, beside, 0, below)) if below or beside else x

    def forward(self, x: Tensor) -> Tensor:
        """Last pooled map (B, feature_channels, h, w) of an input (B, in_channels, H, W)."""
        return self.features(x)[1]

    def hyper(self, x: Tensor) -> HyperLayers:
        """The input and every convolution's output after batch normalisation and ReLU (PAPER 2.3)."""
        return self.features(x)[0]

    def embed(self, x: Tensor) -> Tensor:
        """Flattened last map (N, D), spatial layout kept, not normalised: the node feature of PAPER 1.4."""
        return self.forward(x).flatten(1)


def _scaled(stages: tuple[tuple[int, ...], ...], width: float) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(max(4, round(c * width)) for c in stage) for stage in stages)


VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
TINY_STAGES = ((16,), (24,), (32, 32), (48, 48), (64,))
PAPER_HEAD_STD = 1e-4


def vgg16(in_channels: int, width: float, generator: torch.Generator | None = None) -> Backbone:
    """VGG-16 with batch normalisation after each of its 13 convolutions; last map pool5, scale 32 (PAPER 2.3)."""
    return Backbone(
        _scaled(VGG16_STAGES, width), in_channels, pool_last=True, head_std=PAPER_HEAD_STD, generator=generator
    )


def tiny_vgg(in_channels: int, width: float, generator: torch.Generator | None = None) -> Backbone:
    """Seven convolutions of 16 to 64 channels for trials on a CPU; last map conv5, scale 16."""
    return Backbone(_scaled(TINY_STAGES, width), in_channels, pool_last=False, head_std=None, generator=generator)
