"""Weights from elsewhere, renamed to ours: torchvision, common self-supervised ResNets, the reference's Caffe models.

Every function takes tensors by their foreign names and gives them by ours; what has no place in a backbone is listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.models.caffemodel import Layer
from engine.models.vgg import VGG16_STAGES

WRAPPERS = (
    "module.encoder_q.",
    "module.base_encoder.",
    "encoder_q.",
    "base_encoder.",
    "module.backbone.",
    "backbone.",
    "student.",
    "teacher.",
    "module.",
    "encoder.",
)
"""Prefixes that MoCo, DenseCL, DINO and their like put before a ResNet's names; removed again and again."""
CONTAINERS = ("state_dict", "model", "teacher", "student", "model_state_dict")
"""Keys under which a training checkpoint keeps its tensors."""
HEADS = ("fc.", "classifier.", "head.", "heads.", "queue", "predictor.", "projector.", "neck.", "projection_head.")
BN_PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass
class Renamed:
    """Tensors by our names.

    Attributes:
        tensors: what fills the backbone.
        left_out: foreign names that belong to no backbone: classifiers, projection heads, queues.
        notes: what was changed on the way, in words.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def rename(tensors: Mapping[str, Tensor], backbone: str, ours: Sequence[str]) -> Renamed:
    """Tensors of a state dict by the names of one of our backbones.

    Args:
        tensors: as stored.
        backbone: our name of the network, as in ``model.backbone``.
        ours: the network's own names; a file that has them already is taken as it is.
    """
    plain = {_unwrapped(name): value for name, value in tensors.items()}
    own = {name.removeprefix("backbone."): value for name, value in tensors.items()}
    if len(own.keys() & set(ours)) > len(plain.keys() & set(ours)) // 2 and own.keys() & set(ours):
        found = Renamed()
        with_prefix = any(name.startswith("backbone.") for name in tensors)
        for name, value in tensors.items():
            if (with_prefix and not name.startswith("backbone.")) or name.removeprefix("backbone.").startswith(HEADS):
                found.left_out.append(name)
            else:
                found.tensors[name.removeprefix("backbone.")] = value
        return found
    if backbone == "vgg16" and "features.0.weight" in plain:
        return _vgg(plain)
    if backbone.startswith("alexnet") and "features.0.weight" in plain:
        return _alexnet(plain)
    return _straight(plain)


def _unwrapped(name: str) -> str:
    while True:
        prefix = next((prefix for prefix in WRAPPERS if name.startswith(prefix)), None)
        if prefix is None:
            return name
        name = name.removeprefix(prefix)


def _straight(tensors: Mapping[str, Tensor]) -> Renamed:
    """ResNets: our names are torchvision's."""
    found = Renamed()
    for name, value in tensors.items():
        if name.startswith(HEADS):
            found.left_out.append(name)
        else:
            found.tensors[name] = value
    return found


def _vgg(tensors: Mapping[str, Tensor]) -> Renamed:
    """torchvision's vgg16_bn, or vgg16 without batch normalisation."""
    found = Renamed()
    weights = sorted(
        (int(match[1]) for name in tensors if (match := re.fullmatch(r"features\.(\d+)\.weight", name))),
    )
    convs = [number for number in weights if tensors[f"features.{number}.weight"].ndim == 4]
    names = [f"stages.{stage}.{index}" for stage, blocks in enumerate(VGG16_STAGES) for index in range(len(blocks))]
    normalised = any(f"features.{number + 1}.running_mean" in tensors for number in convs)
    for number, name in zip(convs, names, strict=False):
        found.tensors[f"{name}.conv.weight"] = tensors[f"features.{number}.weight"]
        bias = tensors.get(f"features.{number}.bias")
        if normalised:
            _take_norm(found, tensors, f"features.{number + 1}", f"{name}.bn")
            if bias is not None:
                # (x + b - mean) = (x - (mean - b)): the bias in front of a normalisation moves into its mean.
                found.tensors[f"{name}.bn.running_mean"] = found.tensors[f"{name}.bn.running_mean"] - bias
        elif bias is not None:
            channels = len(bias)
            found.tensors |= {
                f"{name}.bn.weight": torch.ones(channels),
                f"{name}.bn.bias": bias,
                f"{name}.bn.running_mean": torch.zeros(channels),
                f"{name}.bn.running_var": torch.ones(channels),
            }
    found.notes.append(
        "biases before batch normalisation were moved into its running means"
        if normalised
        else "a network without batch normalisation: each bias became a shift, and statistics start at 0 and 1"
    )
    found.left_out += [name for name in tensors if name.startswith(("classifier.", "avgpool"))]
    return found


def _take_norm(found: Renamed, tensors: Mapping[str, Tensor], theirs: str, ours: str) -> None:
    for part in BN_PARTS:
        if f"{theirs}.{part}" in tensors:
            found.tensors[f"{ours}.{part}"] = tensors[f"{theirs}.{part}"]


def _alexnet(tensors: Mapping[str, Tensor]) -> Renamed:
    """torchvision's AlexNet is another network (64 channels first, no groups): names are mapped, shapes then tell."""
    found = Renamed()
    convs = [number for number in (0, 3, 6, 8, 10) if f"features.{number}.weight" in tensors]
    for index, number in enumerate(convs):
        for part in ("weight", "bias"):
            found.tensors[f"convs.{index}.{part}"] = tensors[f"features.{number}.{part}"]
    found.left_out += [name for name in tensors if name.startswith("classifier.")]
    found.notes.append("torchvision's AlexNet differs from the published one in channels and groups")
    return found


def rename_caffe(layers: Sequence[Layer], backbone: str) -> Renamed:
    """Layers of a Caffe model by our names. Convolutions are matched in order, normalisations by the one they follow.

    Caffe's networks see BGR, ours RGB: the first convolution's input channels are reversed where there are three.
    """
    found = Renamed()
    if backbone == "vgg16":
        convs = [f"stages.{stage}.{index}" for stage, blocks in enumerate(VGG16_STAGES) for index in range(len(blocks))]
        conv_name, norm_name = "{}.conv", "{}.bn"
    else:
        convs = [str(number) for number in range(5)]
        conv_name, norm_name = "convs.{}", "norms.{}"
    position = -1
    for layer in layers:
        shapes = [blob.ndim for blob in layer.blobs]
        if shapes[0] == 4 and position + 1 < len(convs) and layer.name.startswith("conv"):
            position += 1
            _take_conv(found, layer, conv_name.format(convs[position]), first=position == 0)
        elif position >= 0 and len(layer.blobs) in (3, 4) and max(shapes) <= 4 and _is_norm(layer, found, position):
            _take_caffe_norm(found, layer, norm_name.format(convs[position]))
        else:
            found.left_out.append(layer.name)
    return found


def _take_conv(found: Renamed, layer: Layer, name: str, *, first: bool) -> None:
    weight = layer.blobs[0]
    if first and weight.shape[1] == 3:
        weight = weight.flip(1)
        found.notes.append("input channels of the first convolution were reversed: BGR became RGB")
    found.tensors[f"{name}.weight"] = weight.contiguous()
    if len(layer.blobs) > 1 and name.startswith("convs."):
        found.tensors[f"{name}.bias"] = layer.blobs[1].flatten()
    elif len(layer.blobs) > 1 and layer.blobs[1].abs().max() > 0:
        found.notes.append(f"the bias of {layer.name} was left out: batch normalisation follows")


def _is_norm(layer: Layer, found: Renamed, position: int) -> bool:
    """Vectors of one length, or Caffe's mean, variance and scale factor."""
    sizes = [blob.numel() for blob in layer.blobs]
    return sizes[0] == sizes[1] and (len(set(sizes)) == 1 or sizes[-1] == 1)


def _take_caffe_norm(found: Renamed, layer: Layer, name: str) -> None:
    blobs = [blob.flatten() for blob in layer.blobs]
    if len(blobs) == 3:
        # Caffe's BatchNorm: sums of statistics and the sum of their weights.
        factor = float(blobs[2][0])
        mean, variance = (blob / factor if factor else blob for blob in blobs[:2])
        found.tensors[f"{name}.running_mean"], found.tensors[f"{name}.running_var"] = mean, variance
        found.tensors[f"{name}.weight_sum"] = torch.tensor(factor)
        return
    # The BN layer of the release's Caffe: scale, shift, mean, variance.
    for part, blob in zip(BN_PARTS, blobs, strict=True):
        found.tensors[f"{name}.{part}"] = blob
