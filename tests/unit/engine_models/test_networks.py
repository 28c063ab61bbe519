"""AlexNet, ResNets and dense heads, against their published shapes and networks written out naively."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config.schema import ModelConfig
from engine.data.pipeline import normalise, rgb_constants
from engine.errors import RecipeError
from engine.models import build_backbone, build_head
from engine.models.alexnet import CaffeBatchNorm, local_response_norm
from engine.models.dense_heads import DenseSegmenter, upsample


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("name", "features"), [("alexnet", 256 * 4 * 4), ("alexnet_jigsaw", 256 * 5 * 5)])
@pytest.mark.parametrize("colour", ["rgb", "gray"])
def test_alexnet_patch_of_128_has_the_published_number_of_features(name: str, features: int, colour: str) -> None:
    backbone = build_backbone(ModelConfig(backbone=name, input=colour), generator()).eval()
    x = torch.randn(2, backbone.in_channels, 128, 128, generator=generator())
    assert backbone.embed(x).shape == (2, features)


def naive_alexnet(backbone: nn.Module, x: Tensor, jigsaw: bool) -> Tensor:
    """PAPER 2.2 line by line, with the library's own layers."""
    lrn = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)
    pool = nn.MaxPool2d(3, 2, padding=1 if jigsaw else 0, ceil_mode=True)
    settings = [(4, 5, 1), (1, 2, 2), (1, 1, 1), (1, 1, 2), (1, 1, 2)]
    for number, (stride, padding, groups) in enumerate(settings):
        conv, norm = backbone.convs[number], backbone.norms[number]
        x = F.conv2d(x, conv.weight, conv.bias, stride, padding, 1, groups)
        x = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()
        x = x.clamp(min=0)
        if number < 2:
            x = lrn(pool(x)) if jigsaw else pool(lrn(x))
    return pool(x)


@pytest.mark.parametrize("jigsaw", [False, True])
def test_alexnet_equals_the_network_written_out(jigsaw: bool) -> None:
    backbone = build_backbone(ModelConfig(backbone="alexnet_jigsaw" if jigsaw else "alexnet", width=0.25), generator())
    x = torch.randn(3, 3, 96, 96, generator=generator())
    backbone.train()(x)  # statistics of one batch
    backbone.eval()
    torch.testing.assert_close(backbone(x), naive_alexnet(backbone, x, jigsaw), rtol=1e-4, atol=1e-4)


def test_caffe_batch_norm_statistics_are_those_of_decaying_sums() -> None:
    norm, batches = CaffeBatchNorm(3), [torch.randn(4, 3, 5, 5, generator=generator(s)) + s for s in range(4)]
    means, variances, weights = torch.zeros(3), torch.zeros(3), 0.0
    for batch in batches:
        values = batch.transpose(0, 1).flatten(1)
        out = norm(batch)
        expected = (batch - values.mean(1)[:, None, None]) / (values.var(1, correction=0)[:, None, None] + 1e-5).sqrt()
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
        means, variances = 0.999 * means + values.mean(1), 0.999 * variances + values.var(1)
        weights = 0.999 * weights + 1
    torch.testing.assert_close(norm.running_mean, means / weights)
    torch.testing.assert_close(norm.running_var, variances / weights)


def test_local_response_norm_equals_the_librarys_and_its_gradient() -> None:
    x = torch.randn(2, 7, 3, 3, generator=generator(), dtype=torch.float64, requires_grad=True)
    expected = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
    torch.testing.assert_close(local_response_norm(x), expected)
    assert torch.autograd.gradcheck(lambda y: local_response_norm(y, alpha=0.5), x)


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 11_176_512), ("resnet50", 23_508_032)])
def test_resnet_has_as_many_parameters_as_the_published_one_without_its_classifier(name: str, parameters: int) -> None:
    backbone = build_backbone(ModelConfig(backbone=name), generator())
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    names = set(backbone.state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "layer4.1.bn2.bias"} <= names


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_dilated_keeps_an_eighth_and_the_same_names(name: str) -> None:
    plain, dilated = (
        build_backbone(ModelConfig(backbone=name, width=0.125, dilated=flag), generator()).eval()
        for flag in (False, True)
    )
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in dilated.state_dict().items()}
    x = torch.randn(1, 3, 64, 64, generator=generator())
    assert plain(x).shape[2:] == (2, 2) and dilated(x).shape[2:] == (8, 8)
    assert dilated.embed(x).shape == (1, dilated.feature_channels * 16)
    averaged = dilated(x).reshape(1, -1, 4, 2, 4, 2).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(dilated.embed(x), averaged)
    # Read at every fourth pixel of an input that is constant there, the dilated net is the plain one before layer3.
    assert torch.equal(plain.hyper(x)[3][0], dilated.hyper(x)[3][0])


def test_resnet_block_equals_the_block_written_out() -> None:
    backbone = build_backbone(ModelConfig(backbone="resnet50", width=0.125), generator()).eval()
    block = backbone.get_submodule("layer2.0")
    x = torch.rand(2, block.conv1.in_channels, 8, 8, generator=generator())

    def norm(y: Tensor, bn: nn.BatchNorm2d) -> Tensor:
        return (y - bn.running_mean[:, None, None]) / (bn.running_var[:, None, None] + bn.eps).sqrt() * bn.weight[
            :, None, None
        ] + bn.bias[:, None, None]

    y = norm(F.conv2d(x, block.conv1.weight), block.bn1).relu()
    y = norm(F.conv2d(y, block.conv2.weight, stride=2, padding=1), block.bn2).relu()
    y = norm(F.conv2d(y, block.conv3.weight), block.bn3)
    y = y + norm(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
    torch.testing.assert_close(block(x), y.relu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(("size", "target"), [((3, 5), (12, 7)), ((1, 1), (4, 4)), ((9, 8), (3, 16))])
def test_upsample_equals_interpolate_and_its_gradient(
    size: tuple[int, int], target: tuple[int, int], align: bool
) -> None:
    x = torch.randn(2, 3, *size, generator=generator(), requires_grad=True)
    ours, theirs = (
        upsample(x, *target, align_corners=align),
        F.interpolate(x, target, mode="bilinear", align_corners=align),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = torch.randn(ours.shape, generator=generator(1))
    gradients = [torch.autograd.grad((value * weights).sum(), x)[0] for value in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["alexnet", "resnet18"])
@pytest.mark.parametrize("head", ["fcn32", "fcn", "aspp"])
def test_dense_heads_start_undecided_and_learn_one_image_by_heart(backbone: str, head: str) -> None:
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, head=head, width=0.25, head_channels=16, fc_channels=32, dropout=0.0)
    net = build_head(build_backbone(config, generator()), 3, config, generator(1))
    assert isinstance(net, DenseSegmenter) and not net.sparse
    x = torch.randn(2, 3, 64, 64, generator=generator())
    target = torch.zeros(2, 64, 64, dtype=torch.int64)
    target[:, :, 32:] = 1
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(net(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(1.0986, abs=1e-3) and losses[-1] < 0.7 * losses[0]
    assert net.eval().dense_logits(x).shape == (2, 3, 64, 64)
    dead = [name for name, p in net.named_parameters() if p.grad is None]
    assert dead == []


def test_heads_and_backbones_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"vgg16 has no dilated form"):
        build_backbone(ModelConfig(backbone="vgg16", dilated=True))
    config = ModelConfig(backbone="alexnet", head="fcn32", fc_channels=0, width=0.25)
    with pytest.raises(RecipeError, match=r"set model\.fc_channels"):
        build_head(build_backbone(config), 3, config)
    config = ModelConfig(backbone="resnet18", dilated=True, width=0.125)
    with pytest.raises(RecipeError, match="doubling scale"):
        build_head(build_backbone(config), 3, config)


def test_upsample_trains_after_an_evaluation_of_the_same_size() -> None:
    """A run that was stopped in an evaluation evaluates first when it goes on."""
    with torch.inference_mode():
        upsample(torch.ones(1, 2, 7, 11), 29, 31)
    maps = torch.ones(1, 2, 7, 11, requires_grad=True)
    upsample(maps, 29, 31).sum().backward()
    assert maps.grad is not None and float(maps.grad.sum()) == pytest.approx(2 * 29 * 31, rel=1e-5)


def test_constants_of_the_input_made_in_an_evaluation_are_plain_tensors() -> None:
    rgb_constants.cache_clear()
    with torch.inference_mode():
        normalise(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "rgb")
    assert not any(constant.is_inference() for constant in rgb_constants(torch.device("cpu")))
