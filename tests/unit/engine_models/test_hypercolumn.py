"""Hypercolumns against a naive per-pixel oracle, and dense prediction against sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.config.schema import ModelConfig
from engine.models import build_backbone, heads
from engine.models.heads import HypercolumnSegmenter
from engine.models.hypercolumn import magnify, sample_columns, sample_map
from engine.models.vgg import HyperLayers

SMALL = {"backbone": "vgg16", "width": 0.0625, "head_channels": 24, "fc_channels": 12, "extra_channels": 10}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def naive_column(layers: HyperLayers, image: int, y: int, x: int) -> list[float]:
    """One pixel's column, corner by corner, as in Larsson's SparseHypercolumnExtractor (clamped to the map)."""
    column: list[float] = []
    for features, scale in layers:
        values = features[image].double()
        height, width = values.shape[1:]
        fy, fx = min(y / scale, height - 1), min(x / scale, width - 1)
        y0, x0 = math.floor(fy), math.floor(fx)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        wy, wx = fy - y0, fx - x0
        for channel in values:
            upper = channel[y0, x0] * (1 - wx) + channel[y0, x1] * wx
            lower = channel[y1, x0] * (1 - wx) + channel[y1, x1] * wx
            column.append(float(upper * (1 - wy) + lower * wy))
    return column


def random_layers(height: int, width: int, batch: int = 2) -> HyperLayers:
    layers: HyperLayers = []
    for scale, channels in ((1, 2), (1, 3), (2, 2), (4, 1), (8, 2), (32, 2)):
        size = (-(-height // scale), -(-width // scale))
        layers.append((torch.randn(batch, channels, *size, generator=generator(scale * 7 + channels)), scale))
    return layers


@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 21), (5, 64)])
def test_sample_columns_any_size_equals_naive_oracle(height: int, width: int) -> None:
    layers = random_layers(height, width)
    ys = torch.randint(0, height, (2, 20), generator=generator(1))
    xs = torch.randint(0, width, (2, 20), generator=generator(2))
    ys[:, :4], xs[:, :4] = torch.tensor([0, 0, height - 1, height - 1]), torch.tensor([0, width - 1, 0, width - 1])
    columns = sample_columns(layers, ys, xs)
    for image in range(2):
        for point in range(20):
            expected = naive_column(layers, image, int(ys[image, point]), int(xs[image, point]))
            assert columns[image, point].tolist() == pytest.approx(expected, abs=1e-5)


def test_sample_map_interior_equals_grid_sample() -> None:
    features = torch.randn(2, 3, 9, 7, generator=generator())
    ys, xs = (
        torch.randint(0, 33, (2, 50), generator=generator(1)),
        torch.randint(0, 25, (2, 50), generator=generator(2)),
    )
    grid = torch.stack([xs / 4 / 6 * 2 - 1, ys / 4 / 8 * 2 - 1], dim=-1)[:, :, None]
    expected = F.grid_sample(features, grid, align_corners=True)[..., 0].transpose(1, 2)
    assert torch.allclose(sample_map(features, 4, ys, xs), expected, atol=1e-5)


def test_sample_map_gradient_is_right_in_double() -> None:
    features = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    ys, xs = torch.tensor([[0, 3, 5, 5, 1]]), torch.tensor([[7, 2, 0, 7, 1]])
    assert torch.autograd.gradcheck(lambda f: sample_map(f, 2, ys, xs), (features,))


def test_magnify_beyond_last_cell_repeats_its_value() -> None:
    coarse = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    fine = magnify(coarse, 4, range(8), 8)[0, 0]
    assert fine[0].tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert fine[:, 0].tolist() == [0, 2, 4, 6, 8, 8, 8, 8]


def segmenter(**changes: object) -> HypercolumnSegmenter:
    """A network whose zero-initialised classifier is replaced, so that its scores say something."""
    config = ModelConfig(**{**SMALL, **changes})
    net = HypercolumnSegmenter(build_backbone(config, generator(1)), 5, config, generator(2)).eval()
    torch.nn.init.normal_(net.hidden.weight, std=0.3, generator=generator(3))
    torch.nn.init.normal_(net.hidden.bias, std=0.3, generator=generator(3))
    torch.nn.init.normal_(net.classifier.weight, std=0.5, generator=generator(4))
    return net


def picture(batch: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=generator(5))


def sampled_everywhere(net: HypercolumnSegmenter, x: Tensor, stride: int = 1) -> Tensor:
    height, width = x.shape[2:]
    ys, xs = torch.meshgrid(torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij")
    shape = ys.shape
    points = [p.reshape(1, -1).expand(len(x), -1) for p in (ys, xs)]
    with torch.no_grad():
        scores = net.sample_logits(x, *points)
    return scores.transpose(1, 2).reshape(len(x), -1, *shape)


@pytest.mark.parametrize(
    ("changes", "height", "width"),
    [
        ({}, 64, 64),
        ({}, 50, 37),
        ({"input": "gray"}, 33, 40),
        ({"fc_channels": 0}, 45, 64),
        ({"extra_channels": 0}, 40, 40),
        ({"backbone": "tiny_vgg", "width": 0.5, "fc_channels": 0, "extra_channels": 0}, 96, 70),
        ({}, 1, 3),
    ],
)
def test_dense_logits_stride_1_equal_sampling(
    changes: dict[str, object], height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "HIDDEN_BYTES", 4 * 24 * width * 7)  # portions of 7 rows: seams would show
    net = segmenter(**changes)
    x = picture(2, net.backbone.in_channels, height, width)
    expected = sampled_everywhere(net, x)
    assert expected.std() > 0.1
    assert torch.allclose(net.dense_logits(x), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("stride", [2, 3, 4, 5, 8, 16])
def test_dense_logits_larger_stride_keep_sampled_pixels(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "HIDDEN_BYTES", 4 * 24 * 20 * 3)
    net = segmenter()
    x = picture(2, 3, 53, 62)
    dense = net.dense_logits(x, stride)
    assert dense.shape == (2, 5, 53, 62)
    assert torch.allclose(dense[:, :, ::stride, ::stride], sampled_everywhere(net, x, stride), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("backbone", ["alexnet", "alexnet_torchvision"])
def test_dense_logits_of_maps_that_end_before_the_image_keep_sampled_pixels(backbone: str, stride: int) -> None:
    net = segmenter(backbone=backbone, width=0.125)
    for height, width in ((64, 64), (33, 47), (95, 101), (29, 62)):
        x = picture(2, 3, height, width)
        dense = net.dense_logits(x, stride)
        assert dense.shape == (2, 5, height, width)
        assert torch.allclose(dense[:, :, ::stride, ::stride], sampled_everywhere(net, x, stride), atol=2e-4, rtol=1e-4)


def test_dense_logits_stride_2_interpolate_between_sampled_pixels() -> None:
    net = segmenter()
    dense = net.dense_logits(picture(1, 3, 32, 32), 2)
    middle = (dense[:, :, 0:-2:2] + dense[:, :, 2::2]) / 2
    assert torch.allclose(dense[:, :, 1:-1:2], middle, atol=1e-4)


def test_dense_logits_bf16_scores_are_interpolated_in_float32() -> None:
    net = segmenter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        dense = net.dense_logits(picture(1, 3, 33, 33), 2)
    assert dense.dtype == torch.float32
    grid = dense[:, :, ::2, ::2]
    expected = F.interpolate(grid, (33, 33), mode="bilinear", align_corners=True)
    torch.testing.assert_close(dense, expected, rtol=1e-5, atol=1e-5)


def test_dense_logits_images_in_portions_equal_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    net = segmenter()
    x = picture(3, 3, 32, 32)
    whole = net.dense_logits(x)
    monkeypatch.setattr(heads, "MAPS_BYTES", 1)
    assert torch.allclose(net.dense_logits(x), whole, atol=1e-5)


def test_dense_logits_in_training_mode_is_refused() -> None:
    with pytest.raises(AssertionError, match="eval"):
        segmenter().train().dense_logits(picture(1, 3, 16, 16))


def test_dense_logits_bf16_autocast_stays_close_to_fp32() -> None:
    net = segmenter()
    x = picture(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net.dense_logits(x)
    exact = net.dense_logits(x)
    assert rounded.dtype == torch.float32
    assert float((rounded - exact).abs().mean() / exact.abs().mean()) < 0.03


def test_sample_logits_backward_is_bitwise_repeatable() -> None:
    def gradients() -> list[Tensor]:
        net = segmenter()
        # The same few pixels many times over: additions to one cell could come in any order.
        ys = torch.randint(0, 4, (2, 400), generator=generator(6))
        net.sample_logits(picture(2, 3, 32, 32), ys, ys).square().mean().backward()
        return [p.grad for p in net.parameters() if p.grad is not None]

    torch.use_deterministic_algorithms(True)
    try:
        first, second = gradients(), gradients()
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(first) > 20
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_vgg16_hypercolumn_has_the_dimensions_and_scales_of_the_paper() -> None:
    config = ModelConfig(input="gray")
    with torch.device("meta"):
        net = HypercolumnSegmenter(build_backbone(config), 21, config)
        scales = [scale for _, scale in net.layers(torch.zeros(1, 1, 512, 512, device="meta"))]
    assert net.column_channels == 14_465
    assert scales == [1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 64, 128]
    assert net.hidden.weight.shape == (1024, 14_465)


def test_layers_sizes_follow_their_scales() -> None:
    net = segmenter()
    for features, scale in net.layers(picture(1, 3, 65, 33)):
        assert features.shape[2:] == (-(-65 // scale), -(-33 // scale))
        assert np.log2(scale).is_integer()
