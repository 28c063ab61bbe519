"""Hypercolumns: the features of every layer above one pixel, by bilinear interpolation.

Pixel (y, x) reads a map of scale s at (y/s, x/s), clamped to the map, offsets 0, as the reference's
``SparseHypercolumnExtractor`` does (PAPER 2.3; Larsson et al. 2016). Two ways to the same numbers:

- ``sample_columns`` gathers the columns of few pixels, for training;
- ``project_rows`` computes a linear layer on the columns of all pixels, for prediction. A linear layer commutes
  with interpolation, so each map is projected at its own resolution and then added up from coarse to fine. With
  scales that double, interpolating twice equals interpolating once: the knots of a coarse map are knots of the
  finer one.

Shapes: B batch, P pixels, C channels of a map, D channels of all maps, K outputs of the linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.models.vgg import HyperLayers


def sample_columns(layers: HyperLayers, ys: Tensor, xs: Tensor) -> Tensor:
    """Hypercolumns (B, P, D) at integer pixels ys, xs (B, P) of the input.

    The backward pass is deterministic: on CPU and CUDA it is an ordered index_put.
    """
    found: dict[tuple[int, torch.Size, torch.dtype], _Places] = {}
    columns = []
    for features, scale in layers:
        # Maps of one scale are read at the same places.
        alike = scale, features.shape[2:], features.dtype
        if alike not in found:
            found[alike] = _places(features, scale, ys, xs)
        columns.append(_read(features, found[alike]))
    return torch.cat(columns, dim=2)


def sample_map(features: Tensor, scale: int, ys: Tensor, xs: Tensor) -> Tensor:
    """One map (B, C, h, w) read at pixels (B, P): (B, P, C)."""
    return _read(features, _places(features, scale, ys, xs))


@dataclass(frozen=True)
class _Places:
    """Where maps of one scale and size are read.

    Attributes:
        image: number of each image, int64 (B, 1).
        rows: of the cells, int64 (B, P), or (B, 4 P) for the four corners that each pixel lies between.
        columns: the same.
        share: of the lower and of the right corners, (B, P, 1); None = pixels are cells.
    """

    image: Tensor
    rows: Tensor
    columns: Tensor
    share: tuple[Tensor, Tensor] | None


def _places(features: Tensor, scale: int, ys: Tensor, xs: Tensor) -> _Places:
    batch, _, height, width = features.shape
    image = torch.arange(batch, device=ys.device)[:, None]
    if scale == 1:
        return _Places(image, ys.clamp(max=height - 1), xs.clamp(max=width - 1), None)
    y0, y1, fy = _corners(ys, scale, height, features.dtype)
    x0, x1, fx = _corners(xs, scale, width, features.dtype)
    return _Places(image, torch.cat([y0, y0, y1, y1], dim=1), torch.cat([x0, x1, x0, x1], dim=1), (fy, fx))


def _read(features: Tensor, at: _Places) -> Tensor:
    """One map (B, C, h, w) at its places: (B, P, C)."""
    # All four corners in one read: its backward pass then fills and adds one gradient of the map's size, not four.
    cells = features.permute(0, 2, 3, 1)[at.image, at.rows, at.columns]
    if at.share is None:
        return cells
    (fy, fx), corners = at.share, cells.chunk(4, dim=1)
    return torch.lerp(torch.lerp(corners[0], corners[1], fx), torch.lerp(corners[2], corners[3], fx), fy)


def _corners(pixels: Tensor, scale: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    low = (pixels // scale).clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    fraction = (pixels % scale).to(dtype).div_(scale).unsqueeze(2)
    return low, high, fraction


@dataclass(frozen=True)
class Level:
    """Maps that share one scale, and the weights (K, C) that apply to them."""

    scale: int
    maps: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]

    def project(self, low: int, high: int) -> Tensor:
        """Linear layer on rows low..high: (B, K, high - low, w)."""
        total: Tensor | None = None
        for features, weight in zip(self.maps, self.weights, strict=True):
            part = F.conv2d(features[:, :, low:high], weight[:, :, None, None])
            total = part if total is None else total.add_(part)
        assert total is not None
        return total


def build_levels(layers: HyperLayers, weight: Tensor, stride: int) -> list[Level]:
    """Group the maps by scale, finest first, on the grid of every ``stride``-th pixel.

    Maps finer than the stride are read at the grid's pixels alone, as are those of the stride itself that have more or
    fewer cells than the grid. Needs power-of-two scales and stride.
    """
    height, width = layers[0][0].shape[2:]
    grid = (-(-height // stride), -(-width // stride))
    grouped: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    pieces = torch.split(weight, [features.shape[1] for features, _ in layers], dim=1)
    for (features, scale), piece in zip(layers, pieces, strict=True):
        if scale < stride or (scale == stride and tuple(features.shape[2:]) != grid):
            rows = torch.arange(0, height, stride, device=features.device) // scale
            columns = torch.arange(0, width, stride, device=features.device) // scale
            features = features.index_select(2, rows.clamp(max=features.shape[2] - 1))
            features = features.index_select(3, columns.clamp(max=features.shape[3] - 1))
        maps, weights = grouped.setdefault(max(scale // stride, 1), ([], []))
        maps.append(features)
        weights.append(piece)
    return [Level(scale, tuple(maps), tuple(weights)) for scale, (maps, weights) in sorted(grouped.items())]


def project_rows(levels: list[Level], low: int, high: int) -> Tensor:
    """Linear layer on the hypercolumns of grid rows low..high: (B, K, high - low, W), without bias."""
    level, coarser = levels[0], levels[1:]
    own = level.project(low, high)
    if not coarser:
        return own
    ratio = coarser[0].scale // level.scale
    last = coarser[0].maps[0].shape[2] - 1
    first_row, last_row = min(low // ratio, last), min((high - 1) // ratio + 1, last)
    below = project_rows(coarser, first_row, last_row + 1)
    return own.add_(magnify(below, ratio, range(low - first_row * ratio, high - first_row * ratio), own.shape[3]))


def magnify(coarse: Tensor, ratio: int, rows: range, width: int) -> Tensor:
    """Interpolate (B, K, h, w) to a grid ``ratio`` times finer: its rows ``rows`` and first ``width`` columns.

    Cell i of the coarse grid is cell i * ratio of the finer one; beyond the last one its value goes on.
    """
    # Networks that round sizes down leave pixels at the border that are further than one cell from the last one.
    below, beside = (
        max(1, -(-(end - 1) // ratio) + 1 - side)
        for end, side in zip((rows.stop, width), coarse.shape[2:], strict=True)
    )
    padded = F.pad(coarse, (0, beside, 0, below), mode="replicate")
    size = [(side - 1) * ratio + 1 for side in padded.shape[2:]]
    fine = F.interpolate(padded, size=size, mode="bilinear", align_corners=True)
    return fine[:, :, rows.start : rows.stop, :width]
