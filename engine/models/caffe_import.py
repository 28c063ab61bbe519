"""Layers of Caffe's networks by our names, at our input's scale.

Caffe's colour networks see BGR pixels 0 to 255 minus a mean, ours RGB minus ImageNet's mean, over its deviation or
(``rgb255``) not: the first convolution is rewritten so that it gives the same numbers for the same picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config.schema import InputName
from engine.data.pipeline import IMAGENET_MEAN, IMAGENET_STD
from engine.models.caffemodel import EPSILON, Layer, holds_vectors
from engine.models.foreign import BN_PARTS, ForeignError, Renamed
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

    Raises:
        ForeignError: something stands between its convolutions that this backbone has no place for.
    """
    vgg = backbone == "vgg16"
    stages = enumerate(VGG16_STAGES)
    names = [f"stages.{stage}.{n}" for stage, row in stages for n in range(len(row))] if vgg else list("01234")
    found = Renamed()
    blocks = _blocks(layers, len(names), found)
    if blocks and blocks[0].weight.shape[1] == 3:
        _take_our_input(blocks[0], MEANS_BGR.get(backbone, MEAN_BGR), found, input)
    plain = not any(block.norm for block in blocks)
    if blocks and plain:
        found.notes.append("a network without batch normalisation: statistics start at 0 and 1")
        for block in blocks:
            _fold_scale(block)
    if not vgg:
        _refuse_learned(blocks, backbone)
    for name, block in zip(names, blocks, strict=False):
        (_take_vgg if vgg else _take_alexnet)(found, block, name, plain)
    return found


def _blocks(layers: Sequence[Layer], most: int, found: Renamed) -> list[_Block]:
    """The first ``most`` convolutions of a file with what follows each; other layers are left out, and theirs too."""
    blocks: list[_Block] = []
    apart = False
    for layer in layers:
        full = layer.name.startswith("fc")
        # First what normalises: conv1_bn, too, may be of four dimensions.
        if holds_vectors(layer) and not apart and not full:
            _attach(blocks, layer)
        elif layer.blobs[0].ndim == 4 and len(blocks) < most and layer.name.startswith("conv"):
            weight = layer.blobs[0]
            bias = layer.blobs[1].flatten() if len(layer.blobs) > 1 else torch.zeros(len(weight))
            blocks.append(_Block(layer.name, weight, bias))
            apart = False
        else:
            apart = True
            found.left_out.append(layer.name)
    return blocks


def _attach(blocks: Sequence[_Block], layer: Layer) -> None:
    """Give a layer of vectors to the convolution that it follows; without it that would compute something else."""
    block = blocks[-1] if blocks else None
    if block and block.norm is None and block.scale is None and _is_norm(layer, len(block.weight)):
        block.norm = layer
    elif block and block.scale is None and _is_scale(layer, len(block.weight), normed=block.norm is not None):
        block.scale = layer
    else:
        kind = f" ({layer.kind})" if layer.kind and not layer.kind.isdigit() else ""
        if block is None:
            raise ForeignError(f"a layer {layer.name}{kind} that neither place nor name tells to follow a convolution")
        raise ForeignError(f"a layer {layer.name}{kind} behind {block.name}, which model.backbone has no place for")


def _is_norm(layer: Layer, channels: int) -> bool:
    """Four vectors, or Caffe's sums of means and variances with the sum of their weights."""
    sizes = [blob.numel() for blob in layer.blobs]
    return sizes in ([channels] * 4, [channels, channels, 1])


def _is_scale(layer: Layer, channels: int, *, normed: bool) -> bool:
    """The learned factors, and shifts, that stand apart from Caffe's own normalisation.

    HDF5 files tell no kinds. A single vector may be slopes or shifts there, so its name and place must not say so.
    """
    sizes = [blob.numel() for blob in layer.blobs]
    if layer.kind == "" and sizes == [channels]:
        return normed and not any(word in layer.name.lower() for word in ("relu", "bias"))
    named = layer.kind in ("", "Scale") or layer.kind.isdigit()
    return named and sizes in ([channels], [channels] * 2)


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
    # Caffe takes zeros where nothing has been summed, whatever the sums are.
    mean, variance = (blob / factor if factor else torch.zeros_like(blob) for blob in blobs[:2])
    # Ours adds Caffe's usual epsilon to the variance.
    return {"running_mean": mean, "running_var": variance + (norm.epsilon - EPSILON), "weight_sum": blobs[2][0].clone()}


def _learned(block: _Block) -> tuple[Tensor, Tensor]:
    """Factors and shifts behind the normalisation: those of a BN layer, then those of a Scale layer."""
    factor, shift = torch.ones_like(block.bias), torch.zeros_like(block.bias)
    if block.norm and len(block.norm.blobs) == 4:
        factor, shift = (blob.flatten() for blob in block.norm.blobs[:2])
    if block.scale:
        own = [blob.flatten() for blob in block.scale.blobs]
        factor, shift = factor * own[0], shift * own[0] + (own[1] if len(own) > 1 else 0)
    return factor, shift


def _fold_scale(block: _Block) -> None:
    """Let a convolution that nothing normalises do what its Scale layer did."""
    factor, shift = _learned(block)
    block.weight, block.bias = block.weight * factor.view(-1, 1, 1, 1), block.bias * factor + shift
    block.scale = None


def _refuse_learned(blocks: Sequence[_Block], backbone: str) -> None:
    """Our AlexNet's normalisation learns nothing, as the release's: in training scales could be put nowhere."""
    lost = []
    for block in blocks:
        factor, shift = _learned(block)
        if not (torch.all(factor == 1) and torch.all(shift == 0)):
            lost += [layer.name for layer in (block.scale or block.norm,) if layer]
    if lost:
        raise ForeignError(
            f"Scale layers ({', '.join(lost)}), and model.backbone={backbone} normalises with no learned scale:"
            " take a file of a network without such layers"
        )


def _take_vgg(found: Renamed, block: _Block, name: str, plain: bool) -> None:
    """Our VGG's convolutions have no bias: it moves into the mean that is taken away after it, or becomes the shift."""
    found.tensors[f"{name}.conv.weight"] = block.weight
    zeros, ones = torch.zeros_like(block.bias), torch.ones_like(block.bias)
    factor, shift = _learned(block)
    if plain:
        parts = {"weight": ones, "bias": block.bias, "running_mean": zeros, "running_var": ones}
    elif block.norm is None:
        # Too little for a whole import; in a partial one the fresh normalisation around it is none.
        found.notes.append(f"{block.name} has no normalisation of its own")
        parts = {"running_mean": -block.bias} | ({"weight": factor, "bias": shift} if block.scale else {})
    else:
        parts = {**_statistics(block.norm), "weight": factor, "bias": shift}
        parts["running_mean"] = parts["running_mean"] - block.bias
        parts.pop("weight_sum", None)
    found.tensors |= {f"{name}.bn.{part}": value for part, value in parts.items()}


def _take_alexnet(found: Renamed, block: _Block, name: str, plain: bool) -> None:
    """Our AlexNet has Caffe's biases and statistics."""
    found.tensors |= {f"convs.{name}.weight": block.weight, f"convs.{name}.bias": block.bias}
    parts: dict[str, Tensor] = {}
    if plain:
        zeros, ones = torch.zeros_like(block.bias), torch.ones_like(block.bias)
        parts = {"running_mean": zeros, "running_var": ones, "weight_sum": torch.zeros(())}
    elif block.norm is not None:
        parts = _statistics(block.norm)
    found.tensors |= {f"norms.{name}.{part}": value for part, value in parts.items() if part not in ("weight", "bias")}
