"""torchvision's networks, described here a second time: their names and shapes, and what they compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.config.schema import ModelConfig
from engine.data.pipeline import normalise
from engine.errors import CheckpointError
from engine.models import build_backbone
from engine.models.timm_library import timm
from engine.models.weights import load_weights

Shapes = dict[str, tuple[int, ...]]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- AlexNet: "One weird trick" (Krizhevsky 2014), without groups, normalisation of responses or of batches.


class AlexNet(nn.Module):
    """As torchvision writes it, in the layer order of its state dict; the classifier is cut short."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(192, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(8, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2))


@pytest.fixture
def alexnet_file(tmp_path: Path) -> tuple[Path, AlexNet]:
    torch.manual_seed(3)
    net = AlexNet().eval()
    torch.save(net.state_dict(), tmp_path / "alexnet-owt-7be5be79.pth")
    return tmp_path / "alexnet-owt-7be5be79.pth", net


@pytest.mark.parametrize("size", [(224, 224), (97, 150), (64, 64)])
def test_alexnet_of_torchvision_computes_what_it_computed_there(
    alexnet_file: tuple[Path, AlexNet], size: tuple[int, int]
) -> None:
    path, net = alexnet_file
    backbone = build_backbone(ModelConfig(backbone="alexnet_torchvision", weights=str(path)), generator(1)).eval()
    x = torch.randn(1, 3, *size, generator=generator())
    with torch.no_grad():
        found, expected = backbone(x), net.features(x)
        assert float(expected.std()) > 0
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        maps = [m for m, _ in backbone.hyper(x)[1:]]
        layers = list(net.features)
        for number, (conv, own) in enumerate(zip((0, 3, 6, 8, 10), maps, strict=True)):
            y = x
            for layer in layers[: conv + 2]:
                y = layer(y)
            torch.testing.assert_close(own, y, rtol=1e-4, atol=1e-6, msg=f"conv{number + 1}")


def test_networks_of_pytorch_compute_the_same_of_pixels_that_are_not_divided(
    alexnet_file: tuple[Path, AlexNet], tmp_path: Path
) -> None:
    path, _ = alexnet_file
    rgb = torch.randint(0, 256, (2, 3, 80, 70), generator=generator(), dtype=torch.uint8)
    nets = {
        input: build_backbone(ModelConfig(backbone="alexnet_torchvision", input=input, weights=str(path))).eval()
        for input in ("rgb", "rgb255")
    }
    maps = [net(normalise(rgb, input)).detach() for input, net in nets.items()]
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-3, atol=1e-4 * float(maps[0].abs().max()))

    # And back again: a network that was exported says what it reads.
    own = tmp_path / "own.safetensors"
    save_file(nets["rgb255"].state_dict(), own, {"input": "rgb255"})
    plain = build_backbone(ModelConfig(backbone="alexnet_torchvision", weights=str(own))).eval()
    torch.testing.assert_close(
        plain(normalise(rgb, "rgb")).detach(), maps[0], rtol=1e-3, atol=1e-4 * float(maps[0].abs().max())
    )
    config = ModelConfig(backbone="alexnet_torchvision", input="rgb255", weights=str(own))
    again = build_backbone(config).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in nets["rgb255"].state_dict().items())


def test_alexnet_of_torchvision_accounts_for_every_key(alexnet_file: tuple[Path, AlexNet]) -> None:
    path, net = alexnet_file
    backbone = build_backbone(ModelConfig(backbone="alexnet_torchvision"), generator(1))
    report = load_weights(backbone, "alexnet_torchvision", path)
    assert report.complete and len(report.loaded) == 10
    assert set(report.left_out) == {name for name in net.state_dict() if name.startswith("classifier.")}
    with pytest.raises(CheckpointError, match="alexnet_torchvision"):
        build_backbone(ModelConfig(backbone="alexnet", weights=str(path)), generator(1))


@pytest.mark.parametrize("side", [7, 16, 31])
def test_alexnet_of_torchvision_takes_images_that_are_small(side: int) -> None:
    """Below 63 pixels torchvision's own has nothing left to pool."""
    backbone = build_backbone(ModelConfig(backbone="alexnet_torchvision", width=0.125), generator()).eval()
    features = backbone(torch.randn(1, 3, side, side, generator=generator()))
    assert features.shape[2:] == (1, 1) and bool(features.isfinite().all())


# --- ResNets (He et al. 2016), with the names that torchvision gave their parts.


def norm(name: str, channels: int) -> Shapes:
    parts: Shapes = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**parts, f"{name}.num_batches_tracked": ()}


def resnet18_block(name: str, inputs: int, channels: int) -> Shapes:
    found = {f"{name}.conv1.weight": (channels, inputs, 3, 3), **norm(f"{name}.bn1", channels)}
    return found | {f"{name}.conv2.weight": (channels, channels, 3, 3), **norm(f"{name}.bn2", channels)}


def resnet50_block(name: str, inputs: int, outputs: int) -> Shapes:
    thin = outputs // 4
    found: Shapes = {f"{name}.conv1.weight": (thin, inputs, 1, 1), **norm(f"{name}.bn1", thin)}
    found |= {f"{name}.conv2.weight": (thin, thin, 3, 3), **norm(f"{name}.bn2", thin)}
    return found | {f"{name}.conv3.weight": (outputs, thin, 1, 1), **norm(f"{name}.bn3", outputs)}


def resnet_shapes(kind: str) -> Shapes:
    """Table 1 of the paper, column by column."""
    counts, widths, block = {
        "resnet18": ((2, 2, 2, 2), (64, 128, 256, 512), resnet18_block),
        "resnet50": ((3, 4, 6, 3), (256, 512, 1024, 2048), resnet50_block),
    }[kind]
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    inputs = 64
    for layer, (count, outputs) in enumerate(zip(counts, widths, strict=True), 1):
        for index in range(count):
            shapes |= block(f"layer{layer}.{index}", inputs, outputs)
            if inputs != outputs:
                shortcut = f"layer{layer}.{index}.downsample"
                shapes |= {f"{shortcut}.0.weight": (outputs, inputs, 1, 1), **norm(f"{shortcut}.1", outputs)}
            inputs = outputs
    return {**shapes, "fc.weight": (1000, inputs), "fc.bias": (1000,)}


@pytest.mark.parametrize(("kind", "keys", "weights"), [("resnet18", 122, 11_689_512), ("resnet50", 320, 25_557_032)])
def test_resnet_has_every_name_and_shape_of_torchvisions(kind: str, keys: int, weights: int) -> None:
    shapes = resnet_shapes(kind)
    # What torchvision's documentation says of its own: the description above is of the same network.
    learned = [s for name, s in shapes.items() if not name.endswith(("running_mean", "running_var", "tracked"))]
    assert (len(shapes), sum(int(torch.Size(s).numel()) for s in learned)) == (keys, weights)
    backbone = build_backbone(ModelConfig.model_validate({"backbone": kind}), generator())
    found = {name: tuple(value.shape) for name, value in backbone.state_dict().items()}
    assert found == {name: shape for name, shape in shapes.items() if not name.startswith("fc.")}


def test_resnet_of_torchvision_fills_every_key_and_leaves_its_classifier_out(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {
        name: torch.tensor(5) if name.endswith("tracked") else torch.rand(shape, generator=generator())
        for name, shape in resnet_shapes("resnet18").items()
    }
    torch.save(tensors, tmp_path / "resnet18-f37072fd.pth")
    backbone = build_backbone(ModelConfig(backbone="resnet18"), generator(1))
    report = load_weights(backbone, "resnet18", tmp_path / "resnet18-f37072fd.pth")
    assert report.complete and set(report.left_out) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, tensors[name]) for name, value in backbone.state_dict().items())


# --- torchvision itself (a test-only extra).


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("resnet18", "resnet18"),
        ("resnet50", "resnet50"),
        ("vgg16", "vgg16_bn"),
        ("vgg16", "vgg16"),
        ("alexnet_torchvision", "alexnet"),
    ],
)
def test_backbone_computes_what_torchvision_computes_from_its_state_dict(
    ours: str, theirs: str, tmp_path: Path
) -> None:
    timm()  # which loads torchvision, whatever that was built for
    from torchvision import models

    torch.manual_seed(0)
    net = getattr(models, theirs)(weights=None).eval()
    for name, value in net.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            value.normal_(std=0.1)
    torch.save(net.state_dict(), tmp_path / "theirs.pth")
    backbone = build_backbone(ModelConfig(backbone=ours, weights=str(tmp_path / "theirs.pth"))).eval()
    x = torch.randn(2, 3, 96, 128, generator=generator())
    if ours.startswith("resnet"):
        expected = net.layer4(net.layer3(net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))))
    else:
        expected = net.features(x)
    # A network without normalisation becomes one with statistics of 0 and 1, whose epsilon is left: 16 layers of it.
    tolerance = 2e-3 if theirs == "vgg16" else 1e-4
    torch.testing.assert_close(backbone(x), expected, rtol=tolerance, atol=tolerance)
