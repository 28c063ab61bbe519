"""Every combination of Caffe's layers behind a convolution, in both file formats, against a forward pass as Caffe's."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.config.schema import ModelConfig
from engine.errors import CheckpointError
from engine.models import build_backbone
from engine.models.weights import LoadReport
from tests.unit.engine_models.caffe_files import field, layer

WIDTH = 0.125
VGG = tuple((outputs, 3, 1, 1, 1) for outputs in (8, 8, 16, 16, 32, 32, 32, *(64,) * 6))
ALEXNET = ((12, 11, 4, 5, 1), (32, 5, 1, 2, 2), (48, 3, 1, 1, 1), (48, 3, 1, 1, 2), (32, 3, 1, 1, 2))
"""Channels, kernel, stride, padding, groups."""
Layers = list[tuple[str, str, list[Tensor]]]
FACTORS = (None, 1.0, 0.0, 999.98)
SCALES = ("", "Scale", "Scale without bias")


def network(backbone: str, *, bias: bool, factor: float | None, scale: str = "") -> Layers:
    """Layers for grey input: convolutions, each with BatchNorm (unless ``factor`` is None) and Scale."""
    source = torch.Generator().manual_seed(3)
    layers: Layers = []
    inputs = 1
    for number, (outputs, kernel, _, _, groups) in enumerate(VGG if backbone == "vgg16" else ALEXNET, 1):
        weight = torch.randn(outputs, inputs // groups, kernel, kernel, generator=source)
        # Without statistics Caffe divides by the root of 1e-5: the maps shall stay of one size all the same.
        size = (2 * groups / (inputs * kernel**2)) ** 0.5 * (1e-5**0.5 if factor == 0 else 1)
        blobs = [weight * size, torch.randn(outputs, generator=source) * (1e-5**0.5 if factor == 0 else 1)]
        layers.append((f"conv{number}", "Convolution", blobs[: 1 + bias]))
        if factor is not None:
            mean, variance = (torch.rand(outputs, generator=source) + shift for shift in (-0.5, 0.5))
            sums = [mean * (factor or 1), variance * (factor or 1), torch.tensor([factor])]
            layers.append((f"bn{number}", "BatchNorm", sums))
        if scale:
            learned = [torch.randn(outputs, generator=source) + 1, torch.randn(outputs, generator=source)]
            layers.append((f"scale{number}", "Scale", learned[: 1 if "without" in scale else 2]))
        inputs = outputs
    return layers


def batch_norm(x: Tensor, blobs: list[Tensor], eps: float) -> Tensor:
    """As caffe/src/caffe/layers/batch_norm_layer.cpp says: sums times 0 where the sum of their weights is 0."""
    mean, variance, factor = (blob.double() for blob in blobs)
    times = 0.0 if float(factor) == 0 else 1 / float(factor)
    return (x - (times * mean).view(-1, 1, 1)) / ((times * variance).view(-1, 1, 1) + eps).sqrt()


def forward(backbone: str, layers: Layers, x: Tensor, eps: float = 1e-5) -> Tensor:
    """The last pooled map of the network in a file, layer for layer, in float64."""
    plan = VGG if backbone == "vgg16" else ALEXNET
    x, number = x.double(), -1
    for at, (_, kind, blobs) in enumerate(layers):
        if kind == "Convolution":
            number += 1
            _, _, stride, padding, groups = plan[number]
            shift = blobs[1].double() if len(blobs) > 1 else None
            x = F.conv2d(x, blobs[0].double(), shift, stride, padding, 1, groups)
        elif kind == "BatchNorm":
            x = batch_norm(x, blobs, eps)
        else:
            x = x * blobs[0].double().view(-1, 1, 1)
            x = x + blobs[1].double().view(-1, 1, 1) if len(blobs) > 1 else x
        if at + 1 == len(layers) or layers[at + 1][1] == "Convolution":
            x = after(backbone, number, x.clamp(min=0))
    return x


def after(backbone: str, number: int, x: Tensor) -> Tensor:
    """Response normalisation and pooling behind the convolutions that have them."""
    if backbone == "vgg16":
        return F.max_pool2d(x, 2, ceil_mode=True) if number in (1, 3, 6, 9, 12) else x
    x = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0) if number < 2 else x
    return F.max_pool2d(x, 3, 2, ceil_mode=True) if number in (0, 1, 4) else x


def write(path: Path, layers: Layers) -> Path:
    if path.suffix == ".caffemodel":
        path.write_bytes(b"".join(layer(*parts) for parts in layers))
        return path
    with h5py.File(path, "w") as file:
        for name, _, blobs in layers:
            for index, blob in enumerate(blobs):
                file[f"data/{name}/{index}"] = blob.numpy()
    return path


def loaded(backbone: str, path: Path, **changes: Any) -> tuple[torch.nn.Module, LoadReport]:
    reports: list[LoadReport] = []
    config = ModelConfig(backbone=backbone, width=WIDTH, input="gray", weights=str(path), **changes)
    found = build_backbone(config, torch.Generator().manual_seed(9), reports.append)
    return found.eval(), reports[0]


def grey() -> Tensor:
    return torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(4))


def assert_same_features(backbone: str, path: Path, layers: Layers, eps: float = 1e-5) -> None:
    expected = forward(backbone, layers, grey(), eps)
    size = float(expected.abs().max())
    assert 0.1 < size < 1e6, "an oracle that is 0, or overflows, shows nothing"
    found = loaded(backbone, path)[0](grey()).detach().double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4 * size)


@pytest.mark.parametrize("suffix", [".caffemodel", ".h5"])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("bias", [True, False])
def test_features_of_vgg_are_those_of_the_file(tmp_path: Path, bias: bool, factor: float | None, suffix: str) -> None:
    for scale in SCALES:
        layers = network("vgg16", bias=bias, factor=factor, scale=scale)
        if suffix == ".h5" and factor is None and "without" in scale:
            continue  # refused, see below
        assert_same_features("vgg16", write(tmp_path / f"net{suffix}", layers), layers)


@pytest.mark.parametrize("suffix", [".caffemodel", ".h5"])
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("bias", [True, False])
def test_features_of_alexnet_are_those_of_the_file_or_it_is_refused(
    tmp_path: Path, bias: bool, factor: float | None, suffix: str
) -> None:
    for scale in SCALES:
        layers = network("alexnet", bias=bias, factor=factor, scale=scale)
        path = write(tmp_path / f"net{suffix}", layers)
        if factor is None and suffix == ".h5" and "without" in scale:
            continue  # refused, see below
        if factor is None or not scale:
            assert_same_features("alexnet", path, layers)
            continue
        # In training the network normalises by each batch: scales could be put nowhere.
        for partial in (False, True):
            with pytest.raises(CheckpointError, match=r"Scale layers \(scale1, .*no learned scale") as told:
                loaded("alexnet", path, weights_partial=partial)
            assert str(told.value).count(".") <= 2 + str(path).count(".")


def test_scales_of_one_and_shifts_of_zero_are_none(tmp_path: Path) -> None:
    layers = network("alexnet", bias=True, factor=3.0, scale="Scale")
    plain = [(n, k, [torch.ones_like(b[0]), torch.zeros_like(b[1])] if k == "Scale" else b) for n, k, b in layers]
    assert_same_features("alexnet", write(tmp_path / "net.caffemodel", plain), plain)


def test_release_normalisation_with_a_scale_layer_behind_it_is_both(tmp_path: Path) -> None:
    """The BN layer has a scale of its own; what follows it comes on top."""
    layers = network("vgg16", bias=True, factor=1.0, scale="Scale")
    source = torch.Generator().manual_seed(8)
    own: Layers = []
    told: Layers = []
    for name, kind, blobs in layers:
        if kind != "BatchNorm":
            own, told = [*own, (name, kind, blobs)], [*told, (name, kind, blobs)]
            continue
        learned = [torch.randn(len(blobs[0]), generator=source) for _ in range(2)]
        own.append((name, "BN", [*learned, *blobs[:2]]))
        told += [(name, kind, blobs), (f"own{name}", "Scale", learned)]
    expected = forward("vgg16", told, grey())
    found = loaded("vgg16", write(tmp_path / "net.caffemodel", own))[0](grey()).detach().double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("eps", [1e-3, 1e-7])
@pytest.mark.parametrize("backbone", ["vgg16", "alexnet"])
def test_epsilon_of_a_caffemodel_counts(tmp_path: Path, backbone: str, eps: float) -> None:
    layers = network(backbone, bias=True, factor=0.0)
    if eps > 1e-5:
        layers = network(backbone, bias=True, factor=999.98)
        layers = [(n, k, [b[0], b[1] * 1e-3, b[2]] if k == "BatchNorm" else b) for n, k, b in layers]
    parameter = field(139, b"\x1d" + torch.tensor([eps]).numpy().astype("<f4").tobytes())
    content = b"".join(with_parameter(layer(*parts), parameter if parts[1] == "BatchNorm" else b"") for parts in layers)
    (tmp_path / "net.caffemodel").write_bytes(content)
    expected = forward(backbone, layers, grey(), eps)
    found = loaded(backbone, tmp_path / "net.caffemodel")[0](grey()).detach().double()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4 * float(expected.abs().max()))


def with_parameter(content: bytes, parameter: bytes) -> bytes:
    """A layer's bytes with one field more at its end: the length after its key grows."""
    at, length, shift = 2, 0, 0
    while True:
        length |= (content[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not content[at - 1] & 0x80:
            break
    assert len(content) == at + length
    return field(100, content[at:] + parameter)


def without(layers: Layers, name: str) -> Layers:
    return [parts for parts in layers if parts[0] != name]


def vector(size: int) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(1)) + 0.5


STRANGERS = {
    "slopes of a PReLU": (2, ("relu1", "PReLU", [vector(8)])),
    "slopes behind a Scale": (3, ("relu1", "PReLU", [vector(8)])),
    "a Bias layer": (2, ("shift1", "Bias", [vector(8)])),
    "a second Scale": (3, ("more1", "Scale", [vector(8), vector(8)])),
    "a second normalisation": (3, ("again1", "BatchNorm", [vector(8), vector(8), torch.ones(1)])),
    "statistics of the input": (0, ("data_bn", "BatchNorm", [vector(1), vector(1), torch.ones(1)])),
    "statistics of other channels": (3, ("odd1", "BatchNorm", [vector(5), vector(5), torch.ones(1)])),
}


@pytest.mark.parametrize("what", STRANGERS)
@pytest.mark.parametrize("partial", [False, True])
def test_layer_that_the_network_lacks_is_refused_by_name(tmp_path: Path, what: str, partial: bool) -> None:
    """It changed what the file's network computed: left out, all other weights fit and give other features."""
    at, stranger = STRANGERS[what]
    layers = network("vgg16", bias=True, factor=1.0, scale="Scale")
    path = write(tmp_path / "net.caffemodel", [*layers[:at], stranger, *layers[at:]])
    with pytest.raises(CheckpointError, match=rf"net\.caffemodel holds .*{stranger[0]}"):
        loaded("vgg16", path, weights_partial=partial)


def test_hdf5_layer_of_one_vector_is_a_scale_only_where_nothing_speaks_against_it(tmp_path: Path) -> None:
    """The format has no kinds of layers: slopes, shifts and factors look alike."""
    for factor, name in itertools.product((None, 1.0), ("scale{}", "prelu{}", "bias{}")):
        layers = network("vgg16", bias=True, factor=factor, scale="Scale without bias")
        renamed = [(name.format(n.removeprefix("scale")) if k == "Scale" else n, k, b) for n, k, b in layers]
        path = write(tmp_path / "net.h5", renamed)
        if factor is None or "scale" not in name:
            with pytest.raises(CheckpointError, match=name.format(1)):
                loaded("vgg16", path)


@pytest.mark.parametrize("form", ["scale", "scale_{0}x", "scale{0}{0}"])
@pytest.mark.parametrize("backbone", ["vgg16", "alexnet"])
def test_hdf5_scales_whose_convolution_is_not_told_are_refused(tmp_path: Path, backbone: str, form: str) -> None:
    layers = network(backbone, bias=True, factor=1.0, scale="Scale")
    if form == "scale":
        layers = [parts for parts in layers if parts[1] != "Scale" or parts[0] == "scale1"]
    layers = [(form.format(n.removeprefix("scale") + "0") if k == "Scale" else n, k, b) for n, k, b in layers]
    with pytest.raises(CheckpointError, match="scale"):
        loaded(backbone, write(tmp_path / "net.h5", layers))


@pytest.mark.parametrize("suffix", [".caffemodel", ".h5"])
def test_what_normalises_other_layers_is_left_out(tmp_path: Path, suffix: str) -> None:
    layers = network("vgg16", bias=True, factor=None)
    fc6 = [("fc6", "InnerProduct", [torch.ones(64, 64), torch.ones(64)])]
    rest = [*fc6, ("bn_fc6", "BatchNorm", [vector(64), vector(64), torch.ones(1)]), ("fc8", "Scale", [vector(64)])]
    path = write(tmp_path / f"net{suffix}", [*layers, *rest])
    assert_same_features("vgg16", path, layers)
    assert set(loaded("vgg16", path)[1].left_out) == {"fc6", "bn_fc6", "fc8"}


def test_bias_of_a_convolution_that_lacks_its_normalisation_is_kept(tmp_path: Path) -> None:
    layers = network("vgg16", bias=True, factor=1.0)
    path = write(tmp_path / "net.caffemodel", without(layers, "bn3"))
    with pytest.raises(CheckpointError, match=r"missing stages\.1\.0\.bn\.bias"):
        loaded("vgg16", path)
    found = loaded("vgg16", path, weights_partial=True)[0](grey()).detach().double()
    expected = forward("vgg16", without(layers, "bn3"), grey())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4 * float(expected.abs().max()))
