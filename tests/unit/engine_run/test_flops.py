"""Counted operations, against PyTorch's own counter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from engine.config.schema import ModelConfig
from engine.flops import FlopCount
from engine.models import build_backbone, build_head


def counted(work: Callable[[], object]) -> int:
    with FlopCount() as count:
        work()
    return count.total


def counted_by_pytorch(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("backbone", ["tiny_vgg", "vgg16", "alexnet", "resnet18"])
@pytest.mark.parametrize("graph", ["forward and backward", "no gradients", "inference"])
def test_count_of_a_network_is_that_of_pytorch(backbone: str, graph: str) -> None:
    made = torch.Generator().manual_seed(0)
    config = ModelConfig(backbone=backbone, width=0.25, head="fcn32", head_channels=8, fc_channels=8)
    body = build_backbone(config, made)
    network = build_head(body, 4, config, made).eval()
    images = torch.randn(2, body.in_channels, 64, 64)

    def work() -> None:
        if graph == "forward and backward":
            network(images).float().sum().backward()
        else:
            with torch.inference_mode() if graph == "inference" else torch.no_grad():
                network(images)

    assert counted(work) == counted_by_pytorch(work) > 0


@pytest.mark.parametrize(
    "work",
    [
        lambda: nn.Linear(3, 5)(torch.ones(7, 3)),
        lambda: torch.einsum("ij,kj->ik", torch.ones(4, 6), torch.ones(5, 6)),
        lambda: torch.baddbmm(torch.ones(2, 3, 3), torch.ones(2, 3, 4), torch.ones(2, 4, 3)),
        lambda: F.conv_transpose2d(torch.ones(1, 2, 4, 4), torch.ones(2, 3, 4, 4), stride=2),
        lambda: torch.ones(3) + 1,
    ],
    ids=["linear", "einsum", "baddbmm", "transposed convolution", "none"],
)
def test_count_of_an_operation_is_that_of_pytorch(work: Callable[[], object]) -> None:
    assert counted(work) == counted_by_pytorch(work)
    with torch.inference_mode():
        assert counted(work) == counted_by_pytorch(work)


def test_count_leaves_the_results_alone() -> None:
    left, right = torch.randn(8, 16), torch.randn(16, 4)
    with FlopCount() as count:
        product = left @ right
    assert torch.equal(product, left @ right)
    assert count.total == 2 * 8 * 16 * 4


def test_attention_on_a_cpu_counts_as_its_products_do() -> None:
    """Two products forward; backward these two again and two for each of them: five more."""
    heads, tokens, width = 3, 10, 8
    parts = torch.randn(3, 2, heads, tokens, width, requires_grad=True)
    product = 2 * 2 * heads * tokens * tokens * width

    def forward() -> torch.Tensor:
        return F.scaled_dot_product_attention(*parts.unbind())

    assert counted(forward) == 2 * product
    assert counted(lambda: forward().sum().backward()) == 7 * product


def test_vision_transformer_counts_as_its_layers_do() -> None:
    network = build_backbone(ModelConfig(backbone="timm/vit_small_patch16_224")).eval()
    tokens, width = 5 * 7 + 1, 384
    block = 2 * tokens * width * (3 * width + width + 4 * width + 4 * width) + 2 * 2 * tokens * tokens * width
    resampled = 2 * width * (5 * 14 * 14 + 5 * 14 * 7)
    embedded = 2 * (tokens - 1) * 16 * 16 * 3 * width
    with torch.no_grad():
        assert counted(lambda: network(torch.randn(1, 3, 80, 112))) == 12 * block + embedded + resampled
