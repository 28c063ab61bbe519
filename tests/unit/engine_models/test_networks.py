"""AlexNet, ResNets and dense heads, against their published shapes and networks written out naively."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config.schema import ModelConfig
from engine.data.pipeline import colour_constants, normalise
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


def test_caffe_batch_norm_learns_nothing_from_a_batch_of_nothing() -> None:
    norm = CaffeBatchNorm(3)
    norm(torch.randn(4, 3, 5, 5, generator=generator()))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    assert norm(torch.zeros(0, 3, 5, 5)).shape == (0, 3, 5, 5)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


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


def unsettle(net: nn.Module, seed: int = 5) -> None:
    """To float64, with random normalisation, biases and classifier, so that none of them goes unseen."""
    source = generator(seed)
    with torch.no_grad():
        for name, value in net.double().state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0, generator=source)
            elif value.is_floating_point() and (value.ndim == 1 or not value.any()):
                value.normal_(0.5, 0.5, generator=source)


def naive_convolution(x: Tensor, conv: nn.Conv2d, padding: int = 0, dilation: int = 1) -> Tensor:
    """A convolution as a sum over the taps of its kernel, each a product of matrices on a shifted map."""
    side = conv.weight.shape[2]
    around = torch.zeros(*x.shape[:2], *(size + 2 * padding for size in x.shape[2:]), dtype=x.dtype)
    around[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]] = x
    height, width = (size - dilation * (side - 1) for size in around.shape[2:])
    total = torch.zeros(len(x), len(conv.weight), height, width, dtype=x.dtype)
    for row in range(side):
        for column in range(side):
            y, z = dilation * row, dilation * column
            seen = around[:, :, y : y + height, z : z + width]
            total += torch.einsum("oc,bchw->bohw", conv.weight[:, :, row, column], seen)
    if conv.bias is not None:
        total += conv.bias[:, None, None]
    return total


# A dilated layer takes no stride. Its first 3x3 convolution still sees what the layer before made, at that layer's
# spacing; all that follow see cells as far apart as the strides that were left out would have made them.
SPACINGS = {
    "resnet18": {
        "layer3": {"0.conv1": 1, "0.conv2": 2, "1.conv1": 2, "1.conv2": 2},
        "layer4": {"0.conv1": 2, "0.conv2": 4, "1.conv1": 4, "1.conv2": 4},
    },
    "resnet50": {
        "layer3": {"0.conv2": 1, "1.conv2": 2, "2.conv2": 2, "3.conv2": 2, "4.conv2": 2, "5.conv2": 2},
        "layer4": {"0.conv2": 2, "1.conv2": 4, "2.conv2": 4},
    },
}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_dilated_convolutions_equal_those_written_out(name: str) -> None:
    config = ModelConfig(backbone=name, width=0.0625, dilated=True)
    net = build_backbone(config, generator()).eval()
    unsettle(net)
    wide = {
        path: part
        for path, part in net.named_modules()
        if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3) and path.startswith(("layer3", "layer4"))
    }
    spacings = {f"{layer}.{path}": far for layer, own in SPACINGS[name].items() for path, far in own.items()}
    assert set(wide) == set(spacings)
    for path, spacing in spacings.items():
        conv = wide[path]
        assert (conv.stride, conv.dilation, conv.padding) == ((1, 1), (spacing, spacing), (spacing, spacing)), path
        x = torch.randn(1, conv.in_channels, 11, 10, generator=generator(1), dtype=torch.float64)
        torch.testing.assert_close(conv(x), naive_convolution(x, conv, padding=spacing, dilation=spacing), msg=path)
    for path in ("layer3.0.downsample.0", "layer4.0.downsample.0"):
        beside = net.get_submodule(path)
        assert isinstance(beside, nn.Conv2d) and beside.stride == (1, 1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_dilated_read_at_the_strides_it_left_out_is_the_plain_one(name: str) -> None:
    """Dilation instead of stride adds cells between those of the plain network, and leaves these as they are."""
    plain, dilated = (
        build_backbone(ModelConfig(backbone=name, width=0.0625, dilated=flag), generator()).eval()
        for flag in (False, True)
    )
    for net in (plain, dilated):
        unsettle(net)
    x = torch.randn(1, 3, 64, 128, generator=generator(), dtype=torch.float64)
    with torch.no_grad():
        coarse, fine = ([maps for maps, _ in net.hyper(x)] for net in (plain, dilated))
    assert all(torch.equal(one, other) for one, other in zip(coarse[:4], fine[:4], strict=True))
    for number, step in ((4, 2), (5, 4)):
        assert fine[number].shape[2:] == (8, 16)
        torch.testing.assert_close(fine[number][:, :, ::step, ::step], coarse[number], rtol=1e-9, atol=1e-9)


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


@pytest.mark.parametrize("align", [False, True])
def test_upsample_under_autocast_is_that_without_to_the_bit(align: bool) -> None:
    x = torch.randn(2, 3, 5, 7, generator=generator(), requires_grad=True)
    weights = torch.randn(2, 3, 40, 56, generator=generator(1))
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            value = upsample(x, 40, 56, align_corners=align)
        assert value.dtype == torch.float32
        found.append((value, *torch.autograd.grad((value * weights).sum(), x)))
    assert all(torch.equal(plain, cast) for plain, cast in zip(*found, strict=True))


@pytest.mark.parametrize("head", ["fcn32", "fcn", "aspp"])
@pytest.mark.parametrize("training", [False, True])
def test_scores_of_bf16_maps_are_interpolated_in_float32(head: str, training: bool) -> None:
    """Forward and backward against the library's own, from the same maps of half precision."""
    net = undecided(head, training)
    seen: list[Tensor] = []
    net.head.register_forward_hook(lambda _, __, scores: seen.append(scores))
    x = torch.randn(2, 3, 64, 80, generator=generator())
    weights = torch.randn(2, 5, 64, 80, generator=generator(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = net(x) if training else net.dense_logits(x)
    (maps,) = seen
    assert maps.dtype == torch.bfloat16 and ours.dtype == torch.float32
    leaf = maps.detach().float().requires_grad_()
    theirs = F.interpolate(leaf, (64, 80), mode="bilinear", align_corners=head == "fcn32")
    torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-5, atol=1e-5)
    best = theirs.detach().topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 1e-5
    assert torch.equal(ours.argmax(dim=1)[clear], theirs.argmax(dim=1)[clear]) and clear.float().mean() > 0.99
    if training:
        (found,) = torch.autograd.grad((ours * weights).sum(), maps)
        (expected,) = torch.autograd.grad((theirs * weights).sum(), leaf)
        # Handed on to the maps, the gradient is rounded once to their precision.
        torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=1e-5)


def undecided(head: str, training: bool) -> DenseSegmenter:
    """A dense head on a ResNet whose classes are close to each other everywhere."""
    config = ModelConfig(backbone="resnet18", head=head, width=0.25, head_channels=16, fc_channels=32, dropout=0.0)
    net = build_head(build_backbone(config, generator()), 5, config, generator(1)).train(training)
    assert isinstance(net, DenseSegmenter)
    scorer = list(net.head.children())[-1]
    assert isinstance(scorer, nn.Conv2d)
    nn.init.normal_(scorer.weight, std=0.1, generator=generator(2))
    return net


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
    # Batch normalisation takes away what these add: their gradient is what rounding leaves.
    without_effect = {f"backbone.convs.{number}.bias" for number in range(5)} | {"head.fc6.bias", "head.fc7.bias"}
    without_effect.add("head.mean.bias")  # but for where it closes a ReLU of one image alone
    sizes = {name: 0.0 if p.grad is None else float(p.grad.abs().max()) for name, p in net.named_parameters()}
    assert [name for name, size in sizes.items() if size < 1e-7 and name not in without_effect] == []


def naive_norm(x: Tensor, norm: nn.Module, training: bool) -> Tensor:
    """Batch normalisation by the statistics of the batch, or by those that are kept; learned scale, if there is one."""
    mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    if not training:
        mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    y = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    if isinstance(norm, nn.BatchNorm2d):
        y = y * norm.weight[:, None, None] + norm.bias[:, None, None]
    return y


def naive_block(x: Tensor, block: nn.Module, side: int, dilation: int, training: bool) -> Tensor:
    """Convolution of a kernel of ``side`` that keeps the map's size, batch normalisation, ReLU."""
    conv, norm, _ = block.children()
    assert isinstance(conv, nn.Conv2d) and conv.bias is None and conv.kernel_size == (side, side)
    return naive_norm(naive_convolution(x, conv, dilation * (side // 2), dilation), norm, training).clamp(min=0)


def naive_fcn32(head: nn.Module, x: Tensor, training: bool) -> Tensor:
    """fc6 reads windows of 6 x 6, fc7 and fc8 cells: layers that are fully connected, at every place of a map."""
    height, width = x.shape[2:]
    for name, side, padding in (("6", 6, 3), ("7", 1, 0)):
        fc = head.get_submodule(f"fc{name}")
        assert isinstance(fc, nn.Conv2d) and fc.bias is not None
        windows = F.unfold(x, side, padding=padding)
        x = (fc.weight.flatten(1) @ windows + fc.bias[:, None]).unflatten(
            2, (height + 2 * padding - side + 1, width + 2 * padding - side + 1)
        )
        height, width = x.shape[2:]
        x = F.dropout(naive_norm(x, head.get_submodule(f"norm{name}"), training).clamp(min=0), 0.5, training)
    scores = head.get_submodule("fc8")
    assert isinstance(scores, nn.Conv2d)
    return naive_convolution(x, scores)


def naive_fcn(head: nn.Module, x: Tensor, training: bool) -> Tensor:
    y = naive_block(x, head.get_submodule("block"), 3, 1, training)
    scores = head.get_submodule("output")
    assert isinstance(scores, nn.Conv2d)
    return naive_convolution(F.dropout(y, 0.5, training), scores)


def naive_aspp(head: nn.Module, x: Tensor, training: bool) -> Tensor:
    """What each branch sees: the cell, cells 6, 12 and 18 away, and the mean of the map."""
    parts = [
        naive_block(x, head.get_submodule(f"branches.{number}"), side, rate, training)
        for number, (side, rate) in enumerate(((1, 1), (3, 6), (3, 12), (3, 18)))
    ]
    mean, scores = head.get_submodule("mean"), head.get_submodule("output")
    assert isinstance(mean, nn.Conv2d) and isinstance(scores, nn.Conv2d)
    whole = naive_convolution(x.flatten(2).mean(2)[:, :, None, None], mean).clamp(min=0)
    joined = torch.cat([*parts, whole.repeat(1, 1, *x.shape[2:])], dim=1)
    y = naive_block(joined, head.get_submodule("join"), 1, 1, training)
    return naive_convolution(F.dropout(y, 0.5, training), scores)


def naive_enlarged(maps: Tensor, height: int, width: int, corner_to_corner: bool) -> Tensor:
    """Bilinear, pixel by pixel: corners on corners, or pixels as areas."""

    def taps(at: int, size: int, target: int) -> tuple[int, int, float]:
        place = at * (size - 1) / (target - 1) if corner_to_corner else max((at + 0.5) * size / target - 0.5, 0.0)
        low = min(int(place), size - 1)
        return low, min(low + 1, size - 1), place - low

    out = torch.empty(*maps.shape[:2], height, width, dtype=maps.dtype)
    for row in range(height):
        top, bottom, down = taps(row, maps.shape[2], height)
        line = maps[:, :, top] * (1 - down) + maps[:, :, bottom] * down
        for column in range(width):
            left, right, along = taps(column, maps.shape[3], width)
            out[:, :, row, column] = line[:, :, left] * (1 - along) + line[:, :, right] * along
    return out


@pytest.mark.parametrize(("dilated", "rates"), [(False, [6, 12, 18]), (True, [12, 24, 36])])
def test_aspp_looks_twice_as_many_cells_away_on_maps_of_scale_8(dilated: bool, rates: list[int]) -> None:
    config = ModelConfig(backbone="resnet18", dilated=dilated, width=0.0625, head="aspp", head_channels=8)
    head = build_head(build_backbone(config), 3, config).head
    convs = [part for part in head.modules() if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    assert [conv.dilation[0] for conv in convs] == [conv.padding[0] for conv in convs] == rates


ORACLES = {"fcn32": (naive_fcn32, True), "fcn": (naive_fcn, False), "aspp": (naive_aspp, False)}
"""Each head written out, and whether its scores are enlarged corner to corner."""


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("head", ORACLES)
def test_dense_head_equals_the_head_written_out(head: str, training: bool) -> None:
    """On a map wide enough for the farthest tap; dropout falls on the same units when it draws the same numbers."""
    config = ModelConfig(backbone="tiny_vgg", head=head, width=0.25, head_channels=8, fc_channels=8)
    backbone = build_backbone(config, generator())
    net = build_head(backbone, 3, config, generator(1)).train(training)
    assert isinstance(net, DenseSegmenter)
    unsettle(net)
    x = torch.randn(2, backbone.feature_channels, 21, 23, generator=generator(2), dtype=torch.float64)
    oracle, corner_to_corner = ORACLES[head]
    with torch.no_grad():
        torch.manual_seed(3)
        found = net.head(x)
        torch.manual_seed(3)
        expected = oracle(net.head, x, training)
        grown = int(head == "fcn32")
        assert found.shape == (2, 3, 21 + grown, 23 + grown) and float(found.std()) > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        if not training:
            pixels = torch.randn(1, 3, 45, 62, generator=generator(4), dtype=torch.float64)
            scores = naive_enlarged(oracle(net.head, backbone(pixels), False), 45, 62, corner_to_corner)
            torch.testing.assert_close(net(pixels).double(), scores, rtol=1e-5, atol=1e-5)
            assert torch.equal(net.dense_logits(pixels), net(pixels))


@pytest.mark.parametrize(("backbone", "last", "scores"), [("alexnet", 16, 17), ("alexnet_jigsaw", 17, 18)])
def test_alexnet_with_its_head_has_the_published_maps_of_a_crop_of_512(backbone: str, last: int, scores: int) -> None:
    """PAPER 2.2: 16 x 16 pool5 and 17 x 17 scores; with padded pools 17 x 17 and 18 x 18."""
    config = ModelConfig(backbone=backbone, head="fcn32", width=0.0625, fc_channels=8)
    net = build_head(build_backbone(config, generator()), 21, config, generator(1)).eval()
    assert isinstance(net, DenseSegmenter)
    with torch.no_grad():
        x = torch.randn(1, 3, 512, 512, generator=generator())
        pool5 = net.backbone(x)
        assert pool5.shape[2:] == (last, last) and net.head(pool5).shape == (1, 21, scores, scores)
        assert net(x).shape == (1, 21, 512, 512)


def test_fcn32_head_starts_with_the_published_fillers() -> None:
    """PAPER 2.2: a gaussian of 0.005, biases 0.1. Its scores start at zero, which is our own choice."""
    config = ModelConfig(backbone="alexnet", head="fcn32", width=0.25, fc_channels=256)
    net = build_head(build_backbone(config, generator()), 21, config, generator(1)).requires_grad_(False)
    head = net.get_submodule("head")
    for name in ("fc6", "fc7"):
        values = dict(head.get_submodule(name).named_parameters())
        assert float(values["weight"].std()) == pytest.approx(0.005, rel=0.02)
        assert abs(float(values["weight"].mean())) < 1e-4 and values["bias"].unique().tolist() == pytest.approx([0.1])
    assert not any(bool(value.any()) for value in head.get_submodule("fc8").parameters())


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
    colour_constants.cache_clear()
    with torch.inference_mode():
        normalise(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "rgb")
    assert not any(constant.is_inference() for constant in colour_constants(torch.device("cpu"), "rgb"))
