"""ResNet-18 and ResNet-50 with torchvision's names and topology (stride in the 3x3 convolution), to take its weights.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.vgg import Backbone, HyperLayers

EMBED_SIDE = 4
"""A map is averaged to this side before it becomes a node's feature: 4 x 4 is what VGG-16 has for a patch of 128."""


class Residual(nn.Module):
    """A block of two 3x3 convolutions (``wide`` 1), or of 1x1, 3x3, 1x1 (``wide`` 4).

    Args:
        dilation: spacing of the cells that its first 3x3 convolution reads.
        after: spacing of the cells behind that, which the second one of a block with two reads.
    """

    def __init__(self, inputs: int, channels: int, wide: int, stride: int, dilation: int, after: int) -> None:
        super().__init__()
        outputs = channels * wide
        if wide == 1:
            self.conv1 = _conv(inputs, channels, 3, stride, dilation)
            self.conv2 = _conv(channels, outputs, 3, 1, after)
        else:
            self.conv1 = _conv(inputs, channels, 1)
            self.conv2 = _conv(channels, channels, 3, stride, dilation)
            self.conv3 = _conv(channels, outputs, 1)
            self.bn3 = nn.BatchNorm2d(outputs)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(outputs if wide == 1 else channels)
        self.wide = wide
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, outputs, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.wide > 1:
            y = self.bn3(self.conv3(F.relu(y)))
        kept = x if self.downsample is None else self.downsample(x)
        return F.relu(y + kept)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation=dilation, bias=False)


class ResNet(Backbone):
    """Stem and four layers.

    Args:
        blocks: blocks of each layer.
        wide: 1 for blocks of two convolutions, 4 for bottlenecks.
        dilated: keep the resolution of layer2 in layer3 and layer4 (dilations 2 and 4): scale 8 instead of 32.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int],
        wide: int,
        in_channels: int,
        width: float,
        generator: torch.Generator | None = None,
        *,
        dilated: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        base = max(4, round(64 * width))
        self.in_channels = in_channels
        self.feature_channels = base * 8 * wide
        self.feature_scale = 8 if dilated else 32
        self.hyper_channels = [in_channels, base, *(base * 2**k * wide for k in range(4))]
        self.hyper_scales = [1, 2, 4, 8, 8, 8] if dilated else [1, 2, 4, 8, 16, 32]
        self.head_std: float | None = None
        self.conv1 = nn.Conv2d(in_channels, base, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        inputs = base
        for number, count in enumerate(blocks):
            stride, dilation = (1 if number == 0 else 2), 1
            if dilated and number >= 2:
                stride, dilation = 1, 2 ** (number - 1)
            layer = nn.Sequential()
            for index in range(count):
                # The first block of a dilated layer still sees its input at the old spacing.
                spacing = max(dilation // 2, 1) if index == 0 and dilation > 1 else dilation
                own = stride if index == 0 else 1
                layer.append(Residual(inputs, base * 2**number, wide, own, spacing, dilation))
                inputs = base * 2**number * wide
            self.add_module(f"layer{number + 1}", layer)
        _he_init(self, generator)

    @property
    def stage_maps(self) -> tuple[int, ...]:
        """All four layers, which keep one scale where they are dilated."""
        return (2, 3, 4, 5)

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """The stem, and every residual block."""
        blocks = (block for number in range(4) for block in self.get_submodule(f"layer{number + 1}").children())
        return [(self.conv1, self.bn1), *((block,) for block in blocks)]

    def features(self, x: Tensor) -> tuple[HyperLayers, Tensor]:
        """The stem's map, each layer's output, and the last of these again."""
        layers: HyperLayers = [(x, 1)]
        x = F.relu(self.bn1(self.conv1(x)))
        layers.append((x, 2))
        x = F.max_pool2d(x, 3, 2, 1)
        for number in range(4):
            x = self.get_submodule(f"layer{number + 1}")(x)
            layers.append((x, self.hyper_scales[2 + number]))
        return layers, x

    def embed(self, x: Tensor) -> Tensor:
        """The last map, averaged to 4 x 4 where it is larger and divides evenly, flattened.

        Our choice: the paper has no ResNets. Spatial layout is kept, as with VGG-16's pool5; without the averaging a
        dilated ResNet-50 would have half a million features a patch.
        """
        last = self.forward(x)
        side = last.shape[2]
        if side > EMBED_SIDE and side % EMBED_SIDE == 0 and last.shape[3] == side:
            cell = side // EMBED_SIDE
            last = last.unflatten(3, (EMBED_SIDE, cell)).unflatten(2, (EMBED_SIDE, cell)).mean(dim=(3, 5))
        return last.flatten(1)


def _he_init(module: nn.Module, generator: torch.Generator | None) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu", generator=generator)


def resnet18(
    in_channels: int, width: float, generator: torch.Generator | None = None, *, dilated: bool = False
) -> ResNet:
    """ResNet-18."""
    return ResNet((2, 2, 2, 2), 1, in_channels, width, generator, dilated=dilated)


def resnet50(
    in_channels: int, width: float, generator: torch.Generator | None = None, *, dilated: bool = False
) -> ResNet:
    """ResNet-50."""
    return ResNet((3, 4, 6, 3), 4, in_channels, width, generator, dilated=dilated)
