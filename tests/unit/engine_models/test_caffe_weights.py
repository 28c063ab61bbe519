"""Caffe's networks for colour pictures, computed here as Caffe does: BGR pixels 0 to 255 minus a mean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import h5py
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.config.schema import ModelConfig
from engine.data.pipeline import normalise
from engine.errors import CheckpointError
from engine.models import build_backbone
from tests.unit.engine_models.caffe_files import layer

WIDTH = 0.125
JIGSAW_MEAN = (104.0, 117.0, 123.0)
IMAGENET_MEAN = (104.00699, 116.66877, 122.67892)
OUR_FRAME = (0.406 * 255, 0.456 * 255, 0.485 * 255)
"""BGR of what our networks see outside a picture: zeros of an input from which ImageNet's mean was taken."""
Blobs = list[Tensor]


class Network:
    """A network for Caffe, made up as it goes: each convolution has a bias, and statistics of what it gives."""

    def __init__(self, mean: tuple[float, ...], norm: str) -> None:
        self.mean, self.norm = torch.tensor(mean).view(1, 3, 1, 1), norm
        self.layers: list[tuple[str, str, Blobs]] = []
        self.source = torch.Generator().manual_seed(5)

    def convolve(self, x: Tensor, outputs: int, kernel: int, stride: int, padding: int, groups: int) -> Tensor:
        """Convolution, normalisation by the statistics of x, ReLU. The first call's weights suit pixels to 255."""
        inputs, number = x.shape[1] // groups, sum(kind == "Convolution" for _, kind, _ in self.layers)
        weight = torch.randn(outputs, inputs, kernel, kernel, generator=self.source) / (inputs * kernel**2) ** 0.5
        weight = weight / 60 if number == 0 else weight
        bias = torch.randn(outputs, generator=self.source)
        self.layers.append((f"conv{number + 1}", "Convolution", [weight, bias]))
        y = F.conv2d(x, weight, bias, stride, padding, 1, groups)
        self._add_norm(y, number + 1)
        return y

    def _add_norm(self, y: Tensor, number: int) -> None:
        channels, factor = y.shape[1], torch.tensor([3.0])
        mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3)) + 0.1
        scale, shift = (torch.rand(channels, generator=self.source) + 0.5 for _ in range(2))
        if self.norm == "BN":
            self.layers.append((f"bn{number}", "BN", [v.view(1, -1, 1, 1) for v in (scale, shift, mean, variance)]))
        elif self.norm:
            self.layers.append((f"bn{number}", "BatchNorm", [mean * factor, variance * factor, factor]))
        if self.norm == "BatchNorm+Scale":
            self.layers.append((f"scale{number}", "Scale", [scale, shift]))

    def write(self, path: Path) -> None:
        path.write_bytes(b"".join(layer(*parts) for parts in self.layers))


def normalised(y: Tensor, blobs: list[Blobs]) -> Tensor:
    """What Caffe's normalisation layers of one convolution make of its output."""
    for parts in blobs:
        vectors = [blob.view(-1, 1, 1) for blob in parts]
        if len(parts) == 4:
            y = (y - vectors[2]) / (vectors[3] + 1e-5).sqrt() * vectors[0] + vectors[1]
        elif len(parts) == 3:
            y = (y - vectors[0] / vectors[2]) / (vectors[1] / vectors[2] + 1e-5).sqrt()
        else:
            y = y * vectors[0] + vectors[1]
    return y


def caffe_forward(net: Network, rgb: Tensor, jigsaw: bool, frame: tuple[float, ...] | None = None) -> Tensor:
    """The features of pictures (B, 3, H, W), 0 to 255. Layers that ``net`` lacks are made on the way.

    Args:
        frame: BGR colour outside the picture; None = the mean, as in Caffe, where padding is 0 after subtraction.
    """
    x = rgb.float().flip(1) - net.mean
    edge = torch.zeros(1, 3, 1, 1) if frame is None else torch.tensor(frame).view(1, 3, 1, 1) - net.mean
    plan = (
        [(12, 11, 4, 5, 1), (32, 5, 1, 2, 2), (48, 3, 1, 1, 1), (48, 3, 1, 1, 2), (32, 3, 1, 1, 2)]
        if jigsaw
        else [(w, 3, 1, 1, 1) for w in (8, 8, 16, 16, 32, 32, 32, *(64,) * 6)]
    )
    made = not net.layers
    pools = (0, 1, 4) if jigsaw else (1, 3, 6, 9, 12)
    for number, (outputs, kernel, stride, padding, groups) in enumerate(plan):
        if number == 0:
            x, padding = F.pad(x - edge, (padding,) * 4) + edge, 0
        if made:
            net.convolve(x, outputs, kernel, stride, padding, groups)
        at = [n for n, (_, kind, _) in enumerate(net.layers) if kind == "Convolution"] + [len(net.layers)]
        weight, bias = net.layers[at[number]][2]
        x = F.conv2d(x, weight, bias, stride, padding, 1, groups)
        x = normalised(x, [blobs for _, _, blobs in net.layers[at[number] + 1 : at[number + 1]]]).clamp(min=0)
        if number in pools and jigsaw:
            x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
            x = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0) if number < 4 else x
        elif number in pools:
            x = F.max_pool2d(x, 2, ceil_mode=True)
    return x


def pictures() -> Tensor:
    source = torch.Generator().manual_seed(2)
    coarse = torch.rand(2, 3, 12, 12, generator=source) * 255
    return F.interpolate(coarse, size=96, mode="bilinear").round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("backbone", "norm"),
    [("alexnet_jigsaw", "BatchNorm"), ("alexnet_jigsaw", ""), ("vgg16", "BN"), ("vgg16", "BatchNorm+Scale"),
     ("vgg16", "BatchNorm"), ("vgg16", "")],
)  # fmt: skip
@pytest.mark.parametrize("input", ["rgb", "rgb255"])
def test_colour_network_of_caffe_computes_what_it_computed_there(
    tmp_path: Path, backbone: str, norm: str, input: Literal["rgb", "rgb255"]
) -> None:
    jigsaw, rgb = backbone == "alexnet_jigsaw", pictures()
    net = Network(JIGSAW_MEAN if jigsaw else IMAGENET_MEAN, norm)
    there = caffe_forward(net, rgb, jigsaw)
    net.write(tmp_path / "net.caffemodel")
    config = ModelConfig(backbone=backbone, width=WIDTH, input=input, weights=str(tmp_path / "net.caffemodel"))
    here = build_backbone(config).eval()(normalise(rgb, input)).detach()
    # Inside a picture the same numbers; outside of it our networks see ImageNet's mean, Caffe's their own mean.
    framed = caffe_forward(net, rgb, jigsaw, OUR_FRAME)
    scale = float(there.abs().max())
    assert scale > 0.5
    torch.testing.assert_close(here, framed, rtol=1e-3, atol=1e-4 * scale)
    assert float(F.cosine_similarity(here.flatten(1), there.flatten(1)).min()) > 0.9999
    assert float((here - there).abs().max()) < 0.01 * scale


def test_first_convolution_of_caffe_learns_as_there_with_input_rgb255_alone(tmp_path: Path) -> None:
    """One update of equal rate, in Caffe's own numbers: those of the file, on pixels 0 to 255 minus the mean."""
    rgb = pictures()
    net = Network(JIGSAW_MEAN, "")
    caffe_forward(net, rgb, jigsaw=True)
    weight, bias = (blob.clone().requires_grad_() for blob in net.layers[0][2])
    net.layers[0] = (*net.layers[0][:2], [weight, bias])
    caffe_forward(net, rgb, jigsaw=True, frame=OUR_FRAME).square().mean().backward()
    net.layers[0] = (*net.layers[0][:2], [weight.detach(), bias.detach()])
    assert weight.grad is not None
    there = float(weight.grad.norm() / weight.detach().norm())
    changes: dict[str, float] = {}
    for input in ("rgb", "rgb255"):
        backbone = build_backbone(written(tmp_path, net, input=input)).eval()
        backbone(normalise(rgb, input)).square().mean().backward()
        first = next(backbone.parameters())
        assert first.grad is not None
        changes[input] = float(first.grad.norm() / first.detach().norm())
    assert changes["rgb255"] == pytest.approx(there, rel=0.02), "but for the mean, which Caffe rounds by half a level"
    assert there / changes["rgb"] == pytest.approx(58**2, rel=0.1), "255 times ImageNet's deviation, squared"


def written(tmp_path: Path, net: Network, **changes: object) -> ModelConfig:
    net.write(tmp_path / "net.caffemodel")
    keys = {"backbone": "alexnet_jigsaw", "width": WIDTH, "weights": str(tmp_path / "net.caffemodel"), **changes}
    return ModelConfig.model_validate(keys)


def test_normalisation_of_fc6_is_not_taken_for_that_of_conv5(tmp_path: Path) -> None:
    net = Network(JIGSAW_MEAN, "BatchNorm")
    caffe_forward(net, pictures(), jigsaw=True)
    bare = build_backbone(written(tmp_path, net)).state_dict()
    net.layers.append(("fc6", "Convolution", [torch.ones(32, 32, 6, 6), torch.ones(32)]))
    net.layers.append(("bn6", "BatchNorm", [torch.ones(32), torch.ones(32), torch.ones(1)]))
    whole = build_backbone(written(tmp_path, net)).state_dict()
    assert all(torch.equal(value, bare[name]) for name, value in whole.items())


def test_normalisation_that_is_absent_or_too_much_is_named(tmp_path: Path) -> None:
    net = Network(JIGSAW_MEAN, "BatchNorm+Scale")
    caffe_forward(net, pictures(), jigsaw=True)
    with pytest.raises(CheckpointError, match=r"holds Scale layers \(scale1, scale2, scale3, scale4, scale5\)"):
        build_backbone(written(tmp_path, net))
    net.layers = [parts for parts in net.layers if parts[1] != "Scale" and parts[0] != "bn3"]
    with pytest.raises(CheckpointError, match=r"\(missing norms\.2\.running_mean, norms\.2\.running_var\)"):
        build_backbone(written(tmp_path, net))


# --- Caffe's other file format: an HDF5 group for each layer, found by name alone, in which blobs have numbers.

NAMES = {
    "plain": ("conv{}", "bn{}", "scale{}"),
    "jigsaw": ("conv{}_s1", "bn{}_s1", "scale{}_s1"),
    "short": ("conv{}_s1", "bn{}", "scale{}"),
    "behind": ("conv{}", "conv{}_bn", "conv{}_scale"),
    "below": ("conv{}", "conv{}/bn", "conv{}/scale"),
}


def write_hdf5(path: Path, layers: list[tuple[str, Blobs]]) -> None:
    """As Caffe's Net::ToHDF5 does: /data/<layer>/<index>, a group for layers without weights too."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, blobs in layers:
            group = data.require_group(name)
            for index, blob in enumerate(blobs if not len(group) else []):
                group.create_dataset(str(index), data=blob.numpy())
        data.create_group("relu1")
        file.create_group("diff").create_group("conv1")


def named(net: Network, names: tuple[str, str, str], numbers: list[str]) -> list[tuple[str, Blobs]]:
    """The network's layers by other names, numbered otherwise."""
    found, conv = [], -1
    for _, kind, blobs in net.layers:
        conv += kind == "Convolution"
        form = names[0] if kind == "Convolution" else names[2] if kind == "Scale" else names[1]
        found.append((form.format(numbers[conv]), blobs))
    return found


@pytest.mark.parametrize("style", NAMES)
def test_hdf5_file_gives_what_the_caffemodel_gives(tmp_path: Path, style: str) -> None:
    net = Network(JIGSAW_MEAN, "BatchNorm")
    caffe_forward(net, pictures(), jigsaw=True)
    expected = build_backbone(written(tmp_path, net)).state_dict()
    layers = named(net, NAMES[style], ["1", "2", "3", "4", "5"])
    fc6 = [torch.ones(32, 32, 6, 6), torch.ones(32)]
    layers += [("fc6", fc6), ("bn6", [torch.ones(32), torch.ones(32), torch.ones(1)]), ("fc8", fc6[1:])]
    write_hdf5(tmp_path / "net.caffemodel.h5", layers)
    config = ModelConfig(backbone="alexnet_jigsaw", width=WIDTH, weights=str(tmp_path / "net.caffemodel.h5"))
    found = build_backbone(config).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize(("style", "norm"), [("plain", "BN"), ("behind", "BN"), ("below", "BatchNorm+Scale")])
def test_names_of_more_than_nine_convolutions_are_told_apart(tmp_path: Path, style: str, norm: str) -> None:
    net = Network(IMAGENET_MEAN, norm)
    caffe_forward(net, pictures(), jigsaw=False)
    expected = build_backbone(written(tmp_path, net, backbone="vgg16")).state_dict()
    numbers = [f"{stage}_{n}" for stage, count in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, count + 1)]
    layers = named(net, NAMES[style], [str(n) for n in range(1, 14)] if style == "behind" else numbers)
    write_hdf5(tmp_path / "net.caffemodel.h5", layers)
    (tmp_path / "named.caffemodel").write_bytes(b"".join(layer(name, "", blobs) for name, blobs in layers))
    for name in ("net.caffemodel.h5", "named.caffemodel"):
        config = ModelConfig(backbone="vgg16", width=WIDTH, weights=str(tmp_path / name))
        found = build_backbone(config).state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in found.items()), name


def test_hdf5_file_whose_names_tell_too_little_is_not_taken_for_one_without_normalisation(tmp_path: Path) -> None:
    net = Network(IMAGENET_MEAN, "BN")
    caffe_forward(net, pictures(), jigsaw=False)
    numbers = [f"{stage}_{n}" for stage, count in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, count + 1)]
    write_hdf5(tmp_path / "net.h5", named(net, ("conv{}", "bn_{0[0]}", ""), numbers))
    config = ModelConfig(backbone="vgg16", width=WIDTH, weights=str(tmp_path / "net.h5"))
    with pytest.raises(CheckpointError, match=r"holds a layer bn_1 that neither place nor name tells"):
        build_backbone(config)


def test_hdf5_file_that_cannot_be_read_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.caffemodel.h5"
    config = ModelConfig(backbone="alexnet", width=WIDTH, weights=str(path))
    with pytest.raises(CheckpointError, match="does not exist"):
        build_backbone(config)
    path.write_bytes(b"\x89HDF\r\n\x1a\nnothing")
    with pytest.raises(CheckpointError, match=r"net\.caffemodel\.h5 is no readable HDF5 file"):
        build_backbone(config)
    with h5py.File(path, "w") as file:
        file["model_weights/conv1/kernel"] = [1.0]
    with pytest.raises(CheckpointError, match="no group 'data'"):
        build_backbone(config)
    with h5py.File(path, "w") as file:
        file["data/conv1/0"] = "words"
    with pytest.raises(CheckpointError, match="is no readable HDF5 file"):
        build_backbone(config)
    write_hdf5(path, [("relu2", [])])
    with pytest.raises(CheckpointError, match="holds no layer with weights"):
        build_backbone(config)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(CheckpointError, match=r"pip install 'mmtui\[hdf5\]'"):
        build_backbone(config)
