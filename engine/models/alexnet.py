"""AlexNet as the reference release trains it (PAPER 2.2), and torchvision's, which is another network.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.models.vgg import Backbone, HyperLayers

SHAPES = ((96, 11, 4, 5, 1), (256, 5, 1, 2, 2), (384, 3, 1, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2))
"""Channels, kernel, stride, padding and groups of conv1 to conv5."""
TORCHVISION_SHAPES = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
"""Channels, kernel, stride and padding of torchvision's five convolutions."""
SCALES = (4, 8, 16, 16, 16)
WEIGHT_STD = 0.01
FRACTION = 0.999
"""Share of the old statistics that a step keeps (Caffe's moving_average_fraction)."""


class CaffeBatchNorm(nn.Module):
    """Batch normalisation without learned scale and shift, whose running statistics are means from the first step on.

    Caffe sums statistics with decaying weights and divides by the sum of the weights, so that few steps are enough;
    PyTorch's running average starts at 0 and 1 and forgets that only after thousands of steps at this fraction.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.running_mean: Tensor
        self.running_var: Tensor
        self.weight_sum: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("weight_sum", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised (B, C, H, W)."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, eps=1e-5)
        if len(x):  # a match graph may have no nodes: a batch of nothing has no mean
            self._take_in(x.detach().float())
        return F.batch_norm(x, None, None, training=True, eps=1e-5)

    @torch.no_grad()
    def _take_in(self, x: Tensor) -> None:
        var, mean = torch.var_mean(x, dim=(0, 2, 3))
        self.weight_sum.mul_(FRACTION).add_(1)
        self.running_mean.add_((mean - self.running_mean) / self.weight_sum)
        self.running_var.add_((var - self.running_var) / self.weight_sum)


def local_response_norm(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> Tensor:
    """x / (1 + alpha / size * sum of squares over ``size`` neighbouring channels)^beta.

    Sums of shifted slices: the library's own version rests on 3-D pooling, whose backward pass is not deterministic
    on CUDA.
    """
    half = size // 2
    squares = F.pad(x.square(), (0, 0, 0, 0, half, half))
    total = squares[:, : x.shape[1]]
    for shift in range(1, size):
        total = total + squares[:, shift : shift + x.shape[1]]
    return x * (1 + alpha / size * total).pow(-beta)


class AlexNet(Backbone):
    """Five convolutions, each with Caffe's batch normalisation and ReLU; last map pool5, scale 32.

    The jigsaw variant pads its pools by 1, normalises responses after pooling instead of before, and starts the biases
    of conv2, conv4 and conv5 at 1 instead of 0.1. A patch of 128 x 128 gives 256 x 4 x 4 features, or 256 x 5 x 5.
    """

    def __init__(
        self, in_channels: int, width: float, generator: torch.Generator | None = None, *, jigsaw: bool = False
    ) -> None:
        nn.Module.__init__(self)
        # Halves of the channels are convolved apart, so there is an even number of them.
        channels = [max(4, 2 * round(shape[0] * width / 2)) for shape in SHAPES]
        self.in_channels = in_channels
        self.feature_channels = channels[-1]
        self.feature_scale = 32
        self.hyper_channels = [in_channels, *channels]
        self.hyper_scales = [1, *SCALES]
        self.head_std: float | None = None
        self.jigsaw = jigsaw
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        before = in_channels
        for number, (outputs, (_, kernel, stride, padding, groups)) in enumerate(zip(channels, SHAPES, strict=True)):
            conv = nn.Conv2d(before, outputs, kernel, stride, padding, groups=groups)
            nn.init.normal_(conv.weight, std=WEIGHT_STD, generator=generator)
            assert conv.bias is not None
            nn.init.constant_(conv.bias, (1.0 if jigsaw else 0.1) if number in (1, 3, 4) else 0.0)
            self.convs.append(conv)
            self.norms.append(CaffeBatchNorm(outputs))
            before = outputs

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """The five convolutions, each with its normalisation."""
        return list(zip(self.convs, self.norms, strict=True))

    def features(self, x: Tensor) -> tuple[HyperLayers, Tensor]:
        """Every convolution's map after batch normalisation and ReLU, and pool5."""
        layers: HyperLayers = [(x, 1)]
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x)))
            layers.append((x, SCALES[number]))
            if number < 2:
                x = self._pool(x) if self.jigsaw else self._pool(local_response_norm(x))
                x = local_response_norm(x) if self.jigsaw else x
        return layers, self._pool(x)

    def _pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, padding=int(self.jigsaw), ceil_mode=True)


def alexnet(in_channels: int, width: float, generator: torch.Generator | None = None) -> AlexNet:
    """The variant for random and colorization initialisation."""
    return AlexNet(in_channels, width, generator)


def alexnet_jigsaw(in_channels: int, width: float, generator: torch.Generator | None = None) -> AlexNet:
    """The variant for jigsaw initialisation."""
    return AlexNet(in_channels, width, generator, jigsaw=True)


class TorchvisionAlexNet(Backbone):
    """Five convolutions with ReLU and three pools, without groups, batch or response normalisation; scale 32.

    It computes what torchvision's ``alexnet().features`` computes (Krizhevsky 2014, arXiv 1404.5997), whose weights it
    is meant for, and takes smaller images too: from 7 pixels a side. A patch of 128 x 128 gives 256 x 3 x 3 features.
    """

    def __init__(self, in_channels: int, width: float, generator: torch.Generator | None = None) -> None:
        nn.Module.__init__(self)
        channels = [max(4, round(shape[0] * width)) for shape in TORCHVISION_SHAPES]
        self.in_channels = in_channels
        self.feature_channels = channels[-1]
        self.feature_scale = 32
        self.hyper_channels = [in_channels, *channels]
        self.hyper_scales = [1, *SCALES]
        self.head_std: float | None = None
        self.convs = nn.ModuleList()
        before = in_channels
        for outputs, (_, kernel, stride, padding) in zip(channels, TORCHVISION_SHAPES, strict=True):
            conv = nn.Conv2d(before, outputs, kernel, stride, padding)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu", generator=generator)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
            self.convs.append(conv)
            before = outputs

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """The five convolutions."""
        return [(conv,) for conv in self.convs]

    def features(self, x: Tensor) -> tuple[HyperLayers, Tensor]:
        """Every convolution's map after ReLU, and pool5."""
        layers: HyperLayers = [(x, 1)]
        for number, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            layers.append((x, SCALES[number]))
            if number in (0, 1, 4):
                # A map smaller than the window is pooled whole.
                x = F.max_pool2d(x, [min(3, side) for side in x.shape[2:]], 2)
        return layers, x


def alexnet_torchvision(in_channels: int, width: float, generator: torch.Generator | None = None) -> TorchvisionAlexNet:
    """torchvision's network, to start from its ImageNet weights."""
    return TorchvisionAlexNet(in_channels, width, generator)
