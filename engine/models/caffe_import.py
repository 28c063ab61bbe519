"""Layers of Caffe's networks by our names, at our input's scale.

Caffe's colour networks see BGR pixels 0 to 255 minus a mean, ours RGB minus ImageNet's mean, over its deviation or
(``rgb255``) not: the first convolution is rewritten so that it gives the same numbers for the same picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config.schema import InputName
from engine.data.pipeline import IMAGENET_MEAN, IMAGENET_STD
from engine.models.caffemodel import Layer
from engine.models.foreign import BN_PARTS, Renamed
from engine.models.vgg import VGG16_STAGES

MEAN_BGR = (104.00699, 116.66877, 122.67892)
"""ImageNet's mean as Caffe's networks subtract it, pixel values 0 to 255 (PAPER 2.1)."""
MEANS_BGR = {"alexnet_jigsaw": (104.0, 117.0, 123.0)}
"""Where the release rounds it."""


@dataclass
class _Block:
    """A convolution with the layers that follow it."""

    name: str
    weight: Tensor
    bias: Tensor
    norm: Layer | None = None
    scale: Layer | None = None


def rename_caffe(layers: Sequence[Layer], backbone: str, input: InputName = "rgb") -> Renamed:
    """Layers of a Caffe model by our names. Convolutions are matched in order, normalisations by the one they follow.

    Args:
        layers: those that have weights, in the network's order.
        backbone: our name of the network, as in ``model.backbone``.
        input: what it reads, as in ``model.input``.
    """
    vgg = backbone == "vgg16"
    stages = enumerate(VGG16_STAGES)
    names = [f"stages.{stage}.{n}" for stage, row in stages for n in range(len(row))] if vgg else list("01234")
    found = Renamed()
    blocks = _blocks(layers, len(names), found)
    if blocks and blocks[0].weight.shape[1] == 3:
        _take_our_input(blocks[0], MEANS_BGR.get(backbone, MEAN_BGR), found, input)
    # Three blobs or more are statistics: a file that has some which cannot be told apart is none without.
    plain = not any(block.norm for block in blocks) and not any(len(layer.blobs) > 2 for layer in layers)
    if blocks and plain:
        found.notes.append("a network without batch normalisation: statistics start at 0 and 1")
    for name, block in zip(names, blocks, strict=False):
        (_take_vgg if vgg else _take_alexnet)(found, block, name, plain)
    return found


def _blocks(layers: Sequence[Layer], most: int, found: Renamed) -> list[_Block]:
    """The first ``most`` convolutions of a file; other layers are left out, and what normalises them too."""
    blocks: list[_Block] = []
    current: _Block | None = None
    for layer in layers:
        # First what normalises: conv1_bn, too, may be of four dimensions.
        if current is not None and current.norm is None and _is_norm(layer, len(current.weight)):
            current.norm = layer
        elif current is not None and current.scale is None and _is_scale(layer, len(current.weight)):
            current.scale = layer
        elif layer.blobs[0].ndim == 4 and len(blocks) < most and layer.name.startswith("conv"):
            weight = layer.blobs[0]
            bias = layer.blobs[1].flatten() if len(layer.blobs) > 1 else torch.zeros(len(weight))
            current = _Block(layer.name, weight, bias)
            blocks.append(current)
        else:
            current = None
            found.left_out.append(layer.name)
    return blocks


def _is_norm(layer: Layer, channels: int) -> bool:
    """Four vectors, or Caffe's sums of means and variances with the sum of their weights."""
    sizes = [blob.numel() for blob in layer.blobs]
    return sizes in ([channels] * 4, [channels, channels, 1])


def _is_scale(layer: Layer, channels: int) -> bool:
    """The learned factors, and shifts, that stand apart from Caffe's own normalisation."""
    return [blob.numel() for blob in layer.blobs] in ([channels], [channels] * 2)


def _take_our_input(block: _Block, mean_bgr: Sequence[float], found: Renamed, input: InputName) -> None:
    """Let a first convolution of BGR pixels minus a mean read our input instead.

    With p = 255 (std x + mean): w (p - m) = (255 std w) x + w (255 mean - m). The second part goes into the bias. That
    is exact but for the padding: zeros are the mean colour of either side, at most 0.8 grey levels apart. Input rgb255
    has the factor 1 and learns as it did in Caffe: factors of some 58 let gradients be as much smaller, and a step of
    equal rate changes those weights 3,300 times less in proportion.
    """
    weight = block.weight.double().flip(1)
    mean, std = (torch.tensor(values, dtype=torch.float64).mul(255) for values in (IMAGENET_MEAN, IMAGENET_STD))
    shift = mean - torch.tensor(mean_bgr, dtype=torch.float64).flip(0)
    block.bias = (block.bias.double() + torch.einsum("ochw,c->o", weight, shift)).float()
    factor = torch.ones_like(std) if input == "rgb255" else std
    block.weight = (weight * factor.view(1, 3, 1, 1)).float().contiguous()
    numbers = ", ".join(f"{value:g}" for value in mean_bgr)
    found.notes.append(
        f"the first convolution was rewritten from BGR pixels 0 to 255 minus ({numbers}) to our RGB input;"
        " outside the image it sees ImageNet's mean colour"
    )


def _statistics(norm: Layer) -> dict[str, Tensor]:
    """What a normalisation layer holds, by PyTorch's names; ``weight_sum`` is the sum of Caffe's decaying weights."""
    blobs = [blob.flatten() for blob in norm.blobs]
    if len(blobs) == 4:
        # The BN layer of the release's Caffe: scale, shift, mean, variance.
        return dict(zip(BN_PARTS, blobs, strict=True))
    factor = float(blobs[2][0])
    mean, variance = (blob / factor if factor else blob for blob in blobs[:2])
    return {"running_mean": mean, "running_var": variance, "weight_sum": torch.tensor(factor)}


def _learned(block: _Block) -> Mapping[str, Tensor]:
    return dict(zip(BN_PARTS, (blob.flatten() for blob in block.scale.blobs), strict=False)) if block.scale else {}


def _take_vgg(found: Renamed, block: _Block, name: str, plain: bool) -> None:
    """Our VGG's convolutions have no bias: it moves into the mean that is taken away after it, or becomes the shift."""
    found.tensors[f"{name}.conv.weight"] = block.weight
    channels = len(block.weight)
    parts = {"weight": torch.ones(channels), "bias": torch.zeros(channels)}
    if plain:
        parts |= {"bias": block.bias, "running_mean": torch.zeros(channels), "running_var": torch.ones(channels)}
    elif block.norm is None:
        found.notes.append(f"{block.name} has no normalisation of its own, its bias was left out")
        return
    else:
        parts |= {**_statistics(block.norm), **_learned(block)}
        parts["running_mean"] = parts["running_mean"] - block.bias
        parts.pop("weight_sum", None)
    found.tensors |= {f"{name}.bn.{part}": value for part, value in parts.items()}


def _take_alexnet(found: Renamed, block: _Block, name: str, plain: bool) -> None:
    """Our AlexNet has Caffe's biases and statistics; learned scales, which it lacks, are refused by their names."""
    found.tensors |= {f"convs.{name}.weight": block.weight, f"convs.{name}.bias": block.bias}
    parts: dict[str, Tensor] = {}
    if plain:
        zeros, ones = torch.zeros_like(block.bias), torch.ones_like(block.bias)
        parts = {"running_mean": zeros, "running_var": ones, "weight_sum": torch.zeros(())}
    elif block.norm is not None:
        parts = {**_statistics(block.norm), **_learned(block)}
    found.tensors |= {f"norms.{name}.{part}": value for part, value in parts.items()}
