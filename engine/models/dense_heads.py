"""Heads that score the whole image at once and learn from every pixel: FCN-32 as published for AlexNet, FCN and ASPP.

Shapes: B batch, K classes, H and W pixels of the input.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config.schema import ModelConfig
from engine.host import send
from engine.models.alexnet import CaffeBatchNorm
from engine.models.vgg import Backbone, HyperLayers

ATROUS_RATES = (6, 12, 18)
"""For maps of scale 16 or more; at scale 8, where cells are half as far apart, twice that (Chen et al. 2017)."""
FC_STD, FC_BIAS = 0.005, 0.1
LAST = -1
"""Number of the last map among those that a head may read: what ``Backbone.forward`` gives."""
LEAST_CHANNELS = 8
"""Inside an auxiliary head."""


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # training, too, uses what an evaluation has made
def _weights(size: int, target: int, align_corners: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Interpolation matrix (target, size) of one axis. It is kept on the device: once made, nothing is sent for it."""
    places = torch.arange(target, dtype=torch.float64)
    if align_corners:
        position = places * ((size - 1) / max(target - 1, 1))
    else:
        position = ((places + 0.5) * (size / target) - 0.5).clamp(min=0)
    low = position.floor().clamp(max=size - 1)
    share = (position - low)[:, None]
    high = (low + 1).clamp(max=size - 1)
    matrix = torch.zeros((target, size), dtype=torch.float64)
    matrix.scatter_add_(1, low.long()[:, None], 1 - share)
    matrix.scatter_add_(1, high.long()[:, None], share)
    return send(matrix.float(), device).to(dtype)


def upsample(maps: Tensor, height: int, width: int, *, align_corners: bool = False) -> Tensor:
    """Bilinear resize of (B, C, h, w) to (B, C, height, width), as two matrix products in the maps' own precision.

    The library's own has no deterministic backward pass on CUDA. Autocast, which would round such products to half
    precision, has no say here: neighbouring pixels differ by less than that.
    """
    exported = torch.compiler.is_compiling()
    # What torch.export makes stands for a value and is none: it must not be kept.
    weights = _weights.__wrapped__ if exported else _weights
    rows = weights(maps.shape[2], height, align_corners, maps.device, maps.dtype)
    columns = weights(maps.shape[3], width, align_corners, maps.device, maps.dtype)
    with nullcontext() if exported else torch.autocast(maps.device.type, enabled=False):
        return rows @ maps @ columns.T


class DenseSegmenter(nn.Module):
    """Backbone and a convolutional head; scores are interpolated to the input's size."""

    sparse = False
    """Learns from all pixels rather than from sampled ones."""

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        head: nn.Module,
        *,
        align_corners: bool,
        reads: tuple[int, ...] | None = None,
    ) -> None:
        """``reads``: numbers of the backbone's ``hyper`` maps, or LAST, that the head is given; None = the last one."""
        super().__init__()
        self.reads = reads
        self.backbone = backbone
        self.num_classes = num_classes
        self.head = head
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (B, K, H, W) of an input (B, C, H, W), float32."""
        padded = self.backbone.padded(x)
        return self.scored(self.head, self.given(*self.backbone.features(padded)), padded, x)

    def given(self, layers: HyperLayers, last: Tensor) -> Tensor | list[Tensor]:
        """What the head reads of the backbone's maps."""
        if self.reads is None:
            return last
        return [last if number == LAST else layers[number][0] for number in self.reads]

    def scored(self, head: nn.Module, features: Tensor | list[Tensor], padded: Tensor, x: Tensor) -> Tensor:
        """What a head makes of maps of the backbone, in the size of the input ``x``; ``padded`` is what that read."""
        scores: Tensor = head(features)
        scores = upsample(scores.float(), *padded.shape[2:], align_corners=self.align_corners)
        return scores if padded is x else scores[:, :, : x.shape[2], : x.shape[3]]

    @torch.no_grad()
    def dense_logits(self, x: Tensor, stride: int = 1) -> Tensor:
        """Class scores (B, K, H, W) without gradient; ``stride`` is of no account, as the map is small anyway."""
        assert not self.training, "dense_logits needs evaluation mode: call eval() first"
        scores: Tensor = self(x)
        return scores


class WithAuxiliary(nn.Module):
    """A segmenter and a second head, on an earlier map of the backbone, that is there for training alone.

    Its loss reaches the lower layers on a shorter way (Zhao et al. 2017, PSPNet). A plain FCN head with a quarter of
    the map's channels, as torchvision's.
    """

    def __init__(
        self, segmenter: DenseSegmenter, config: ModelConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        inputs = self.backbone.hyper_channels[self.backbone.earlier_map]
        own = config.model_copy(update={"head_channels": max(inputs // 4, LEAST_CHANNELS)})
        self.auxiliary = FcnHead(inputs, segmenter.num_classes, own, generator)

    @property
    def backbone(self) -> Backbone:
        """The one that both heads read."""
        return self.segmenter.backbone

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class scores (B, K, H, W) of both heads, the auxiliary one's second, float32."""
        padded = self.backbone.padded(x)
        layers, last = self.backbone.features(padded)
        main, earlier = self.segmenter, layers[self.backbone.earlier_map][0]
        return main.scored(main.head, main.given(layers, last), padded, x), main.scored(
            self.auxiliary, earlier, padded, x
        )


class Fcn32Head(nn.Module):
    """fc6 6x6 with padding 3, fc7 1x1, both with batch normalisation, ReLU and dropout; scores 1x1 (PAPER 2.2)."""

    def __init__(self, inputs: int, classes: int, config: ModelConfig, generator: torch.Generator | None) -> None:
        super().__init__()
        width = config.fc_channels
        self.fc6, self.norm6 = nn.Conv2d(inputs, width, 6, padding=3), CaffeBatchNorm(width)
        self.fc7, self.norm7 = nn.Conv2d(width, width, 1), CaffeBatchNorm(width)
        self.fc8 = nn.Conv2d(width, classes, 1)
        self.dropout = config.dropout
        for fc in (self.fc6, self.fc7):
            nn.init.normal_(fc.weight, std=FC_STD, generator=generator)
            assert fc.bias is not None
            nn.init.constant_(fc.bias, FC_BIAS)
        start_at_zero(self.fc8)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, K, h + 1, w + 1)."""
        for fc, norm in ((self.fc6, self.norm6), (self.fc7, self.norm7)):
            x = F.dropout(F.relu(norm(fc(x))), self.dropout, self.training)
        scores: Tensor = self.fc8(x)
        return scores


class FcnHead(nn.Module):
    """3x3 convolution, batch normalisation, ReLU, dropout, scores 1x1."""

    def __init__(self, inputs: int, classes: int, config: ModelConfig, generator: torch.Generator | None) -> None:
        super().__init__()
        self.block = convolution(inputs, config.head_channels, 3, 1, generator)
        self.dropout = config.dropout
        self.output = nn.Conv2d(config.head_channels, classes, 1)
        start_at_zero(self.output)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, K, h, w)."""
        scores: Tensor = self.output(F.dropout(self.block(x), self.dropout, self.training))
        return scores


class Aspp(nn.Module):
    """Atrous spatial pyramid: 1x1, three dilated 3x3 and the image's mean, joined (Chen et al. 2017)."""

    def __init__(self, backbone: Backbone, config: ModelConfig, generator: torch.Generator | None) -> None:
        super().__init__()
        inputs, width = backbone.feature_channels, config.head_channels
        spread = 2 if backbone.feature_scale <= 8 else 1
        self.branches = nn.ModuleList([convolution(inputs, width, 1, 1, generator)])
        self.branches.extend(convolution(inputs, width, 3, spread * rate, generator) for rate in ATROUS_RATES)
        # Without batch normalisation: one value per image and channel is too little to normalise by.
        self.mean = nn.Conv2d(inputs, width, 1)
        nn.init.kaiming_normal_(self.mean.weight, nonlinearity="relu", generator=generator)
        assert self.mean.bias is not None
        nn.init.zeros_(self.mean.bias)  # torch draws it from a generator of its own, which nobody has seeded
        self.join = convolution(width * (len(ATROUS_RATES) + 2), width, 1, 1, generator)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, width, h, w)."""
        mean = F.relu(self.mean(x.mean(dim=(2, 3), keepdim=True))).expand(-1, -1, *x.shape[2:])
        joined: Tensor = self.join(torch.cat([*(branch(x) for branch in self.branches), mean], dim=1))
        return joined


class AsppHead(Aspp):
    """The pyramid, dropout, scores 1x1."""

    def __init__(
        self, backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None
    ) -> None:
        super().__init__(backbone, config, generator)
        self.dropout = config.dropout
        self.output = nn.Conv2d(config.head_channels, classes, 1)
        start_at_zero(self.output)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, K, h, w)."""
        scores: Tensor = self.output(F.dropout(super().forward(x), self.dropout, self.training))
        return scores


def convolution(
    inputs: int, outputs: int, kernel: int, dilation: int, generator: torch.Generator | None
) -> nn.Sequential:
    """A convolution that keeps the size, batch normalisation and ReLU."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def start_at_zero(conv: nn.Conv2d) -> None:
    """All classes alike at first: the loss begins at ln K."""
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


def fcn32(
    backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None = None
) -> DenseSegmenter:
    """AlexNet's published head; its scores are interpolated corner to corner, as Caffe's Interp layer does."""
    head = Fcn32Head(backbone.feature_channels, classes, config, generator)
    return DenseSegmenter(backbone, classes, head, align_corners=True)


def fcn(
    backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None = None
) -> DenseSegmenter:
    """A plain head for modern backbones."""
    head = FcnHead(backbone.feature_channels, classes, config, generator)
    return DenseSegmenter(backbone, classes, head, align_corners=False)


def aspp(
    backbone: Backbone, classes: int, config: ModelConfig, generator: torch.Generator | None = None
) -> DenseSegmenter:
    """A head with a wide view, for dilated backbones."""
    head = AsppHead(backbone, classes, config, generator)
    return DenseSegmenter(backbone, classes, head, align_corners=False)
