"""Heads on several maps, and the linear one: against the same written out with PyTorch's functions; torchvision's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import Recipe
from engine.config.schema import ModelConfig
from engine.errors import RecipeError
from engine.models import HEADS, build_backbone, build_head
from engine.models.dense_heads import AsppHead, DenseSegmenter, FcnHead, WithAuxiliary
from engine.models.export import traced
from engine.models.timm_library import timm

CLASSES = 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unsettle(module: nn.Module) -> None:
    """Random numbers everywhere, statistics too, so that every part counts; float64."""
    draws = generator(5)
    for name, value in module.double().state_dict().items():
        if value.is_floating_point():
            value.copy_(
                torch.randn(value.shape, generator=draws, dtype=torch.float64) * 0.1 + 0.3 * name.endswith("var")
            )
            if name.endswith("var"):
                value.abs_().add_(0.5)


def built(backbone: str, head: str, **keys: Any) -> DenseSegmenter:
    sizes = {} if backbone.startswith("timm/") else {"width": 0.0625}
    config = ModelConfig.model_validate({"backbone": backbone, "head": head, "head_channels": 8, **sizes, **keys})
    found = build_head(build_backbone(config, generator()), CLASSES, config, generator(1)).eval()
    assert isinstance(found, DenseSegmenter)
    unsettle(found.head)
    return found


# ---- written out -----------------------------------------------------------------------------------------------------


def cbr(block: nn.Module, x: Tensor) -> Tensor:
    """Convolution, batch normalisation by running statistics, ReLU, of the parameters of a block."""
    conv, norm, _ = block.children()
    x = F.conv2d(x, conv.weight, padding=conv.padding, dilation=conv.dilation)  # type: ignore[arg-type]
    x = (x - norm.running_mean.view(1, -1, 1, 1)) / (norm.running_var.view(1, -1, 1, 1) + norm.eps).sqrt()  # type: ignore[operator,union-attr]
    return F.relu(x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1))  # type: ignore[operator,union-attr]


def to(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def rescaled(head: Any, maps: Sequence[Tensor]) -> list[Tensor]:
    """Four maps of one scale to four, two, one and half of it."""
    if head.rescaled is None:
        return list(maps)
    first, second, _, _ = head.rescaled.steps
    one = F.conv_transpose2d(maps[0], first[0].weight, first[0].bias, stride=2)
    norm = first[1]
    one = F.gelu(F.batch_norm(one, norm.running_mean, norm.running_var, norm.weight, norm.bias))
    one = F.conv_transpose2d(one, first[3].weight, first[3].bias, stride=2)
    two = F.conv_transpose2d(maps[1], second[0].weight, second[0].bias, stride=2)
    return [one, two, maps[2], F.max_pool2d(maps[3], 2, ceil_mode=True)]


def naive_upernet(head: Any, maps: Sequence[Tensor]) -> Tensor:
    maps = rescaled(head, maps)
    top = maps[-1]
    pooled = [top]
    for side in (1, 2, 3, 6):
        small = F.adaptive_avg_pool2d(top, side)
        if side == 1:
            small = F.relu(F.conv2d(small, head.pooled.whole.weight, head.pooled.whole.bias))
        else:
            small = cbr(head.pooled.parts[{2: 0, 3: 1, 6: 2}[side]], small)
        pooled.append(to(small, top))
    levels = [cbr(head.pooled.join, torch.cat(pooled, dim=1))]
    for number in range(len(maps) - 2, -1, -1):
        lateral = cbr(head.lateral[number], maps[number])
        levels.insert(0, lateral + to(levels[0], lateral))
    outputs = [cbr(head.smooth[number], level) for number, level in enumerate(levels[:-1])] + [levels[-1]]
    fused = cbr(head.join, torch.cat([to(x, outputs[0]) for x in outputs], dim=1))
    return F.conv2d(fused, head.output.weight, head.output.bias)


def naive_pyramid(head: Any, maps: Sequence[Tensor]) -> Tensor:
    laterals = [F.conv2d(x, c.weight, c.bias) for c, x in zip(head.lateral, rescaled(head, maps), strict=True)]
    for number in range(len(laterals) - 2, -1, -1):
        laterals[number] = laterals[number] + to(laterals[number + 1], laterals[number])
    smooth = [cbr(block, x) for block, x in zip(head.smooth, laterals, strict=True)]
    return F.conv2d(sum(to(x, smooth[0]) for x in smooth), head.output.weight, head.output.bias)  # type: ignore[arg-type]


def naive_deeplab(head: Any, maps: Sequence[Tensor]) -> Tensor:
    fine, last = maps
    aspp = head.aspp
    mean = F.relu(F.conv2d(F.adaptive_avg_pool2d(last, 1), aspp.mean.weight, aspp.mean.bias)).expand(
        -1, -1, *last.shape[2:]
    )
    joined = cbr(aspp.join, torch.cat([*(cbr(branch, last) for branch in aspp.branches), mean], dim=1))
    low = cbr(head.low, fine)
    fused = torch.cat([to(joined, low), low], dim=1)
    for block in head.fuse:
        fused = cbr(block, fused)
    return F.conv2d(fused, head.output.weight, head.output.bias)


def naive_linear(head: Any, last: Tensor) -> Tensor:
    return torch.einsum("kc,bchw->bkhw", head.weight[:, :, 0, 0], last) + head.bias.view(1, -1, 1, 1)


ORACLES: dict[str, Callable[[Any, Any], Tensor]] = {
    "upernet": naive_upernet,
    "pyramid": naive_pyramid,
    "deeplabv3plus": naive_deeplab,
    "linear": naive_linear,
}
SCALES = {
    "resnet18": [4, 8, 16, 32],
    "vgg16": [4, 8, 16],
    "tiny_vgg": [4, 8, 16],
    "alexnet": [4, 8, 16],
    "timm/test_convnext": [4, 8, 16, 32],
    "timm/test_vit": [16, 16, 16, 16],
    "timm/vit_small_patch14_reg4_dinov2": [14, 14, 14, 14],
}


@pytest.mark.parametrize("head", ORACLES)
@pytest.mark.parametrize("backbone", SCALES)
def test_head_equals_the_head_written_out(backbone: str, head: str) -> None:
    net = built(backbone, head)
    assert [net.backbone.hyper_scales[number] for number in net.backbone.stage_maps] == SCALES[backbone]
    x = torch.randn(2, 3, 97, 131, generator=generator(2))
    with torch.no_grad():
        padded = net.backbone.padded(x)
        given = net.given(*net.backbone.features(padded))
        maps = [part.double() for part in given] if isinstance(given, list) else given.double()
        found, expected = net.head(maps), ORACLES[head](net.head, maps)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        net.head.float()
        scores = F.interpolate(expected, size=padded.shape[2:], mode="bilinear", align_corners=False)
        torch.testing.assert_close(net(x), scores[:, :, :97, :131].float(), rtol=1e-3, atol=1e-3)
    assert net(x).shape == (2, CLASSES, 97, 131)


# ---- torchvision -----------------------------------------------------------------------------------------------------


def renamed(theirs: nn.Module, ours: dict[str, Tensor]) -> nn.Module:
    """torchvision's module with our numbers, in the order of both; what counts batches is left out."""
    state = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    own = [value for key, value in ours.items() if not key.endswith("num_batches_tracked")]
    assert [value.shape for value in state.values()] == [value.shape for value in own]
    theirs.load_state_dict(dict(zip(state, own, strict=True)), strict=False)
    return theirs.double().eval()


def test_fcn_head_is_torchvisions() -> None:
    timm()  # which loads torchvision, whatever it was built for
    from torchvision.models.segmentation.fcn import FCNHead

    config = ModelConfig(backbone="resnet18", head="fcn", head_channels=16)
    ours = FcnHead(64, CLASSES, config, generator()).eval()
    unsettle(ours)
    x = torch.randn(2, 64, 9, 11, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(ours(x), renamed(FCNHead(64, CLASSES), ours.state_dict())(x))


@pytest.mark.parametrize("dilated", [False, True])
def test_aspp_is_torchvisions_but_for_the_normalisation_of_the_mean(dilated: bool) -> None:
    timm()
    from torchvision.models.segmentation.deeplabv3 import ASPP

    ours = built("resnet18", "aspp", dilated=dilated).head
    assert isinstance(ours, AsppHead)
    state = ours.state_dict()
    bias, ones = state.pop("mean.bias"), torch.ones(8, dtype=torch.float64)
    norm = [ones, bias, 0 * ones, ones - 1e-5]  # it only adds the bias then
    keys = list(state)
    place = keys.index("mean.weight") + 1
    before, after = ({key: state[key] for key in part} for part in (keys[:place], keys[place:]))
    after = {key: value for key, value in after.items() if not key.startswith("output")}
    rates = [12, 24, 36] if dilated else [6, 12, 18]
    inputs = int(state["mean.weight"].shape[1])
    theirs = ASPP(inputs, rates, 8)
    renamed(theirs, before | {f"norm.{number}": value for number, value in enumerate(norm)} | after)
    x = torch.randn(2, inputs, 21, 23, generator=generator(), dtype=torch.float64)
    scores = F.conv2d(theirs(x), state["output.weight"], state["output.bias"])
    torch.testing.assert_close(ours(x), scores)


# ---- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [head for head in HEADS if head not in ("fcn32", "hypercolumn")])
def test_scores_at_the_start_are_alike_and_every_weight_is_seeded(head: str) -> None:
    config = ModelConfig.model_validate({"backbone": "timm/test_vit", "head": head, "head_channels": 8})
    states = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        net = build_head(build_backbone(config, generator()), CLASSES, config, generator(1)).eval()
        states.append(net.state_dict())
        assert not net(torch.randn(1, 3, 40, 40)).any()  # type: ignore[operator]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_hypercolumns_are_refused_on_patches_that_are_no_power_of_two() -> None:
    with pytest.raises(RecipeError, match="hypercolumn needs scales that are powers of two"):
        config = ModelConfig(backbone="timm/vit_small_patch14_dinov2")
        build_head(build_backbone(config), CLASSES, config)


@pytest.mark.parametrize("head", ["upernet", "deeplabv3plus", "linear"])
def test_auxiliary_head_beside_it_reads_an_earlier_map(head: str) -> None:
    main = built("timm/test_convnext", head)
    main.head.float()
    net = WithAuxiliary(main, ModelConfig(head_channels=8), generator(2)).eval()
    unsettle(net.auxiliary)
    net.auxiliary.float()
    x = torch.randn(1, 3, 70, 90, generator=generator())
    scores, earlier = net(x)
    torch.testing.assert_close(scores, main(x))
    expected = net.auxiliary(main.backbone.features(main.backbone.padded(x))[0][-2][0])
    expected = F.interpolate(expected, size=(96, 96), mode="bilinear")[:, :, :70, :90]
    torch.testing.assert_close(earlier, expected, rtol=1e-4, atol=1e-5)


def test_head_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate({"model": {"head": "unet"}, "segment": {}})


@pytest.mark.parametrize(
    ("backbone", "head", "side"),
    [
        ("timm/test_vit", "upernet", 100),
        ("timm/vit_small_patch14_reg4_dinov2", "linear", 56),
        ("timm/test_convnext", "deeplabv3plus", 97),
        ("resnet18", "pyramid", 97),
    ],
)
def test_exported_segmenter_computes_the_same(backbone: str, head: str, side: int) -> None:
    net = built(backbone, head).float()
    program = traced(net, 3, side)
    x = torch.randn(3, 3, side, side, generator=generator(3))
    torch.testing.assert_close(program.module()(x), net.dense_logits(x), rtol=1e-4, atol=1e-4)
