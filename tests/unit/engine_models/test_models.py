"""Backbones, the head's init, and strict weight loading."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from engine.config.backbones import OWN
from engine.config.schema import ModelConfig
from engine.errors import CheckpointError
from engine.models import BUILDERS, build_backbone, build_head
from engine.models.heads import HypercolumnSegmenter
from engine.models.weights import compare, load_backbone

TINY = ModelConfig(backbone="tiny_vgg", head_channels=32, fc_channels=16, extra_channels=16)
NARROW = ModelConfig(backbone="vgg16", width=0.0625, head_channels=16, fc_channels=16, extra_channels=16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_builders_hold_every_backbone_of_the_schema() -> None:
    assert set(BUILDERS) == set(OWN)


@pytest.mark.parametrize("config", [TINY, NARROW, TINY.model_copy(update={"input": "gray"})])
def test_segmenter_two_steps_every_parameter_gets_a_gradient(config: ModelConfig) -> None:
    torch.manual_seed(0)
    net = HypercolumnSegmenter(build_backbone(config), 4, config)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    x = torch.randn(2, net.backbone.in_channels, 64, 64)
    ys, xs = torch.randint(0, 64, (2, 64)), torch.randint(0, 64, (2, 64))
    target = torch.randint(0, 4, (2 * 64,))
    for _ in range(2):  # the classifier starts at zero, so the layers below it learn from the second step on
        optimiser.zero_grad()
        F.cross_entropy(net.sample_logits(x, ys, xs).flatten(0, 1), target).backward()
        optimiser.step()
    dead = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_backbone_embed_equals_flattened_last_map(name: str) -> None:
    backbone = build_backbone(ModelConfig(backbone=name, width=0.25), generator()).eval()
    x = torch.randn(3, 3, 64, 64, generator=generator())
    features = backbone(x)
    # Padded pools give one cell more, pools that round down one less.
    side = {"alexnet_jigsaw": 3, "alexnet_torchvision": 1}.get(name, 64 // backbone.feature_scale)
    assert features.shape == (3, backbone.feature_channels, side, side)
    assert torch.equal(backbone.embed(x), features.reshape(3, -1))
    assert float(features.detach().min()) >= 0
    assert [m.shape[1] for m, _ in backbone.hyper(x)] == backbone.hyper_channels
    assert [scale for _, scale in backbone.hyper(x)] == backbone.hyper_scales


def test_vgg16_embedding_of_a_128_patch_has_8192_dimensions() -> None:
    with torch.device("meta"):
        assert build_backbone(ModelConfig()).embed(torch.zeros(1, 3, 128, 128, device="meta")).shape == (1, 8192)


def test_vgg16_has_the_parameters_of_the_published_network() -> None:
    with torch.device("meta"):
        backbone = build_backbone(ModelConfig())
    convolutions = [m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [c.out_channels for c in convolutions] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert sum(c.weight.numel() for c in convolutions) == 14_710_464
    assert {(n.momentum, n.eps) for n in norms} == {(0.1, 1e-5)}


def test_convolutions_start_with_caffes_xavier_filler() -> None:
    weight = build_backbone(ModelConfig(width=0.5), generator()).state_dict()["stages.4.2.conv.weight"]
    bound = math.sqrt(3 / (256 * 9))
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (NARROW, 1e-4),
        (TINY.model_copy(update={"head_std": 0.02}), 0.02),
        (TINY, None),
    ],
)
def test_head_starts_with_the_documented_deviation(config: ModelConfig, expected: float | None) -> None:
    net = HypercolumnSegmenter(build_backbone(config, generator()), 7, config, generator())
    he = math.sqrt(2 / net.column_channels)
    assert float(net.hidden.weight.detach().std()) == pytest.approx(expected or he, rel=0.05)
    assert float(net.classifier.weight.detach().abs().sum()) == 0
    scores = net.sample_logits(torch.randn(2, 3, 64, 64), torch.zeros(2, 1).long(), torch.zeros(2, 1).long())
    assert torch.equal(scores, torch.zeros(2, 1, 7))


def test_build_backbone_one_seed_gives_one_network() -> None:
    first, second = build_backbone(TINY, generator(3)), build_backbone(TINY, generator(3))
    other = build_backbone(TINY, generator(4))
    key = "stages.0.0.conv.weight"
    assert torch.equal(first.state_dict()[key], second.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])


def test_layers_above_the_backbone_are_those_of_the_paper() -> None:
    net = HypercolumnSegmenter(build_backbone(NARROW, generator()), 3, NARROW, generator(1)).eval()
    x = torch.randn(1, 3, 160, 96, generator=generator(2))
    layers = net.layers(x)
    assert net.fc6 is not None and net.fc7 is not None
    fc6 = F.relu(F.conv2d(net.backbone(x), net.fc6.weight, net.fc6.bias, padding=3))
    fc7 = F.relu(F.conv2d(fc6, net.fc7.weight, net.fc7.bias))
    expected = [fc6, fc7]
    for conv in net.extra:
        values = F.relu(F.conv2d(expected[-1], conv.weight, conv.bias, padding=1))  # type: ignore[arg-type]
        expected.append(F.max_pool2d(values, 2, ceil_mode=True))
    assert net.fc6.kernel_size == (7, 7)
    assert [scale for _, scale in layers[-4:]] == [32, 32, 64, 128]
    for (found, _), wanted in zip(layers[-4:], expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-5) and float(wanted.detach().std()) > 0


def test_dropout_applies_in_training_alone() -> None:
    config = TINY.model_copy(update={"dropout": 0.9})
    net = HypercolumnSegmenter(build_backbone(config, generator()), 3, config)
    torch.nn.init.normal_(net.classifier.weight, generator=generator())
    x, points = torch.randn(2, 3, 64, 64, generator=generator()), torch.full((2, 3), 5)
    torch.manual_seed(0)
    assert not torch.equal(net.sample_logits(x, points, points), net.sample_logits(x, points, points))
    net.eval()
    assert torch.equal(net.sample_logits(x, points, points), net.sample_logits(x, points, points))


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_load_backbone_plain_or_prefixed_file_fills_every_key(tmp_path: Path, prefix: str) -> None:
    source, target = build_backbone(TINY, generator(1)), build_backbone(TINY, generator(2))
    tensors = {prefix + key: value for key, value in source.state_dict().items()}
    if prefix:
        tensors["hidden.weight"] = torch.zeros(3)
    save_file(tensors, tmp_path / "w.safetensors")
    report = load_backbone(target, tmp_path / "w.safetensors")
    assert report.complete and len(report.loaded) == len(source.state_dict())
    assert report.left_out == (("hidden.weight",) if prefix else ())
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_build_backbone_with_weights_starts_from_the_file(tmp_path: Path) -> None:
    source = build_backbone(TINY, generator(1))
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    loaded = build_backbone(TINY.model_copy(update={"weights": str(tmp_path / "w.safetensors")}), generator(2))
    assert torch.equal(loaded.stages[0][0].conv.weight, source.stages[0][0].conv.weight)  # type: ignore[index]


def test_load_backbone_other_network_names_keys_and_changes_nothing(tmp_path: Path) -> None:
    other = build_backbone(TINY.model_copy(update={"input": "gray"}), generator(1)).state_dict()
    del other["stages.4.0.bn.weight"]
    other["surplus"] = torch.zeros(1)
    save_file(other, tmp_path / "w.safetensors")
    target = build_backbone(TINY, generator(2))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_backbone(target, tmp_path / "w.safetensors")
    for part in (
        "w.safetensors",
        "missing stages.4.0.bn.weight",
        "unexpected surplus",
        "(16, 1, 3, 3) for (16, 3, 3, 3)",
    ):
        assert part in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())
    assert not compare(target, other).complete


@pytest.mark.parametrize("fault", ["missing", "unexpected", "mismatched"])
def test_load_backbone_one_fault_alone_is_refused(tmp_path: Path, fault: str) -> None:
    tensors = build_backbone(TINY, generator(1)).state_dict()
    if fault == "missing":
        del tensors["stages.4.0.bn.weight"]
    elif fault == "unexpected":
        tensors["surplus"] = torch.zeros(1)
    else:
        tensors["stages.4.0.bn.weight"] = torch.zeros(65)
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=fault):
        load_backbone(build_backbone(TINY), tmp_path / "w.safetensors")


@pytest.mark.parametrize(("content", "words"), [(None, "does not exist"), (b"\x80\x02pickle", "no readable")])
def test_load_backbone_unreadable_file_is_refused(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_backbone(build_backbone(TINY), path)


@pytest.mark.parametrize("name", sorted(BUILDERS))
@pytest.mark.parametrize("head", get_args(ModelConfig.model_fields["head"].annotation))
def test_every_weight_depends_on_the_generator_alone(name: str, head: str) -> None:
    """A bias that a layer keeps from torch's own generator made two runs of one seed differ."""
    config = ModelConfig(backbone=name, head=head, width=0.125, head_channels=16, fc_channels=16, extra_channels=16)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        try:
            net = build_head(build_backbone(config, generator(5)), 4, config, generator(6))
        except ValueError:
            pytest.skip("no such pair")
        found.append(net.state_dict())
    assert found[0].keys() == found[1].keys()
    assert [key for key in found[0] if not torch.equal(found[0][key], found[1][key])] == []
