"""The segmentation head: a small classifier on hypercolumns (PAPER 2.3)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config.schema import ModelConfig
from engine.models.hypercolumn import build_levels, magnify, project_rows, sample_columns
from engine.models.vgg import Backbone, HyperLayers, xavier_

HIDDEN_BYTES = 64 * 1024**2
"""Aim for the hidden units of one portion of rows in a dense prediction, bytes."""
MAPS_BYTES = 1024**3
"""Aim for the feature maps of the images that a dense prediction holds at once, bytes."""


class HypercolumnSegmenter(nn.Module):
    """Backbone, fc6, fc7 and two extra blocks; hypercolumns of all of them; hidden layer; class scores.

    Layers (PAPER 2.3): the input and every convolution after batch normalisation and ReLU, fc6 (7x7, padding 3) and
    fc7 (1x1), both with ReLU and dropout, conv_add1 and conv_add2 (3x3, ReLU) after their 2x2 pooling. fc6 and fc7
    are left out where ``fc_channels`` is 0, the extra blocks where ``extra_channels`` is 0.

    Init: convolutions xavier, biases 0. Hidden layer gaussian with ``model.head_std``; 0 means what suits the
    backbone: 1e-4 for VGG-16 as published, sqrt(2 / D) (He) for the tiny one, whose short columns would leave 1e-4
    without signal for thousands of steps. The classifier starts at zero, as published, so the first loss is ln K.
    """

    sparse = True
    """Learns from sampled pixels rather than from all of them."""

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        config: ModelConfig,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        channels = list(backbone.hyper_channels)
        top = backbone.feature_channels
        self.fc6: nn.Conv2d | None = None
        self.fc7: nn.Conv2d | None = None
        if config.fc_channels:
            self.fc6 = _conv(top, config.fc_channels, 7, generator)
            self.fc7 = _conv(config.fc_channels, config.fc_channels, 1, generator)
            top = config.fc_channels
            channels += [top, top]
        self.extra = nn.ModuleList()
        if config.extra_channels:
            for _ in range(2):
                self.extra.append(_conv(top, config.extra_channels, 3, generator))
                top = config.extra_channels
                channels.append(top)
        self.dropout = config.dropout
        self.column_channels = sum(channels)
        self.hidden = nn.Linear(self.column_channels, config.head_channels)
        self.classifier = nn.Linear(config.head_channels, num_classes)
        init_head(self.hidden, config.head_std or backbone.head_std, generator)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def layers(self, x: Tensor) -> HyperLayers:
        """Every map of the hypercolumn with its scale."""
        layers, top = self.backbone.features(x)
        scale = self.backbone.feature_scale
        if self.fc6 is not None and self.fc7 is not None:
            for fc in (self.fc6, self.fc7):
                top = F.dropout(F.relu(fc(top)), self.dropout, self.training)
                layers.append((top, scale))
        for conv in self.extra:
            top = F.max_pool2d(F.relu(conv(top)), 2, ceil_mode=True)
            scale *= 2
            layers.append((top, scale))
        return layers

    def forward(self, x: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
        """``sample_logits``: what training calls."""
        return self.sample_logits(x, ys, xs)

    def sample_logits(self, x: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
        """Class scores (B, P, K) at pixels ys, xs int64 (B, P) of an input (B, C, H, W)."""
        return self._classify(sample_columns(self.layers(x), ys, xs))

    def _classify(self, columns: Tensor) -> Tensor:
        scores: Tensor = self.classifier(F.relu(self.hidden(columns)))
        return scores

    @torch.no_grad()
    def dense_logits(self, x: Tensor, stride: int = 1) -> Tensor:
        """Class scores (B, K, H, W) of every pixel, without gradient.

        At stride 1 equal to ``sample_logits`` everywhere, up to rounding. At a larger stride the scores of every
        stride-th pixel are interpolated bilinearly. Memory is bounded: images and rows are taken in portions, so the
        network has to be in evaluation mode, where an image does not depend on its batch.
        """
        assert not self.training, "dense_logits needs evaluation mode: call eval() first"
        height, width = x.shape[2:]
        rows, columns = -(-height // stride), -(-width // stride)
        grid = x.new_empty((len(x), self.num_classes, rows, columns), dtype=torch.float32)
        at_once = self._images_at_once(height, width)
        for first in range(0, len(x), at_once):
            layers = self.layers(x[first : first + at_once])
            for image in range(len(layers[0][0])):
                own = [(features[image : image + 1], scale) for features, scale in layers]
                self._fill(grid[first + image], own, stride)
        if stride == 1:
            return grid
        return magnify(grid, stride, range(height), width)

    def _images_at_once(self, height: int, width: int) -> int:
        """How many images' maps fit MAPS_BYTES, counting four bytes a value; at least one."""
        layers = zip(self.backbone.hyper_channels, self.backbone.hyper_scales, strict=True)
        cells = sum(channels / scale**2 for channels, scale in layers)
        return max(1, int(MAPS_BYTES / (4 * cells * height * width)))

    def dense_scores(self, x: Tensor) -> Tensor:
        """Class scores (B, K, H, W) of every pixel: ``dense_logits`` of stride 1 without its loop over images.

        For ``torch.export``, which writes down what is done for one size of image and any number of them; memory grows
        with their number.
        """
        layers = self.layers(x)
        portion = self._rows_at_once(x.shape[3])
        return torch.cat([scores for _, scores in self._projected(layers, 1, x.shape[2], portion)], dim=2)

    def _rows_at_once(self, columns: int) -> int:
        """How many rows' hidden units of one image fit HIDDEN_BYTES; at least one."""
        return max(1, HIDDEN_BYTES // (4 * self.hidden.out_features * columns))

    def _fill(self, grid: Tensor, layers: HyperLayers, stride: int) -> None:
        """Scores of one image into grid (K, rows, columns), a few rows at a time."""
        portion = self._rows_at_once(grid.shape[2])
        if stride & (stride - 1) == 0:
            for low, scores in self._projected(layers, stride, grid.shape[1], portion):
                grid[:, low : low + scores.shape[2]] = scores[0]
        else:
            step = max(1, portion * self.hidden.out_features // self.column_channels)
            self._fill_sampled(grid, layers, stride, step)

    def _projected(self, layers: HyperLayers, stride: int, rows: int, portion: int) -> Iterator[tuple[int, Tensor]]:
        """First row and scores (B, K, <= portion, columns), by projecting each map at its own resolution.

        The stride is a power of two.
        """
        levels = build_levels(layers, self.hidden.weight, stride)
        kernel = self.classifier.weight[:, :, None, None]
        for low in range(0, rows, portion):
            hidden = project_rows(levels, low, min(low + portion, rows)).add_(self.hidden.bias[:, None, None]).relu_()
            yield low, F.conv2d(hidden, kernel, self.classifier.bias)

    def _fill_sampled(self, grid: Tensor, layers: HyperLayers, stride: int, portion: int) -> None:
        """By sampling, for any stride."""
        columns = torch.arange(grid.shape[2], device=grid.device) * stride
        for low in range(0, grid.shape[1], portion):
            high = min(low + portion, grid.shape[1])
            rows = torch.arange(low, high, device=grid.device) * stride
            ys = rows[:, None].expand(-1, len(columns)).reshape(1, -1)
            xs = columns[None, :].expand(len(rows), -1).reshape(1, -1)
            scores = self._classify(sample_columns(layers, ys, xs))
            grid[:, low:high] = scores[0].T.reshape(-1, high - low, len(columns))


def init_head(linear: nn.Linear, std: float | None, generator: torch.Generator | None) -> None:
    """Gaussian weights of deviation ``std`` (None: He's sqrt(2 / fan_in)), biases 0."""
    nn.init.normal_(linear.weight, std=std or math.sqrt(2.0 / linear.in_features), generator=generator)
    nn.init.zeros_(linear.bias)


def _conv(inputs: int, outputs: int, kernel: int, generator: torch.Generator | None) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    xavier_(conv.weight, generator)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
