"""State dicts from elsewhere, renamed to ours: torchvision, common self-supervised ResNets.

Every function takes tensors by their foreign names and gives them by ours; what has no place in a backbone is listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.models.vgg import VGG16_STAGES

WRAPPERS = (
    "encoder_q.0.",
    "encoder_q.",
    "base_encoder.",
    "online_encoder.",
    "backbone.",
    "student.",
    "teacher.",
    "module.",
    "encoder.",
    "net.",
)
"""Prefixes that MoCo, DenseCL, BYOL, DINO and their like put before a ResNet's names; removed again and again."""
SECONDS = (
    "encoder_k.",
    "momentum_encoder.",
    "target_encoder.",
    "momentum_backbone.",
    "backbone_momentum.",
)
"""Prefixes of the second network that such a checkpoint carries: an average of the trained one, which is left out."""
CONTAINERS = ("state_dict", "model", "teacher", "student", "model_state_dict")
"""Keys under which a training checkpoint keeps its tensors."""
HEADS = (
    "fc.",
    "classifier.",
    "head.",
    "heads.",
    "queue",
    "neck.",
    "encoder_q.1.",
    "predictor.",
    "online_predictor.",
    "prediction_head.",
    "projector.",
    "projector_k.",
    "momentum_projector.",
    "projection_head.",
    "projection_head_momentum.",
    "prototypes.",
)
"""Prefixes of what stands on a backbone, and of queues of keys."""
BN_PARTS = ("weight", "bias", "running_mean", "running_var")


class ForeignError(ValueError):
    """A file that cannot be taken; the text goes on after "FILE holds "."""


@dataclass
class Renamed:
    """Tensors by our names.

    Attributes:
        tensors: what fills the backbone.
        left_out: foreign names that belong to no backbone: classifiers, projection heads, queues, averaged networks.
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

    Raises:
        ForeignError: two tensors differ and have the same name without their prefixes, or it is another AlexNet.
    """
    names, left_out, notes = _plain_names(tensors)
    known = set(ours)
    own = known & {name.removeprefix("backbone.") for name in tensors}
    if own and len(own) > len(known & names.keys()) // 2:
        return _own(tensors)
    plain = {name: _only(tensors, stored) for name, stored in names.items()}
    found = Renamed()
    if backbone == "vgg16" and "features.0.weight" in plain:
        found = _vgg(plain)
    elif backbone == "alexnet_torchvision" and "features.0.weight" in plain:
        found = _alexnet(plain)
    elif backbone.startswith("alexnet") and "features.0.weight" in plain:
        raise ForeignError("torchvision's AlexNet: set model.backbone=alexnet_torchvision")
    else:
        # ResNets: our names are torchvision's.
        found.tensors = plain
    repeated = [name for stored in names.values() for name in stored[1:]]
    return Renamed(found.tensors, [*left_out, *found.left_out, *repeated], [*notes, *found.notes])


def _plain_names(tensors: Mapping[str, Tensor]) -> tuple[dict[str, list[str]], list[str], list[str]]:
    """Stored names by what is left of them without prefixes; names of what is no backbone; notes on these."""
    seconds: tuple[str, ...] = SECONDS
    if any(name.removeprefix("module.").startswith("teacher.") for name in tensors):
        # DINO and its like: what they evaluate is the teacher.
        seconds = (*SECONDS, "student.")
    names: dict[str, list[str]] = {}
    left_out: list[str] = []
    averaged: dict[str, int] = {}
    for stored in tensors:
        name = stored
        while not name.startswith((*seconds, *HEADS)):
            prefix = next((prefix for prefix in WRAPPERS if name.startswith(prefix)), None)
            if prefix is None:
                names.setdefault(name, []).append(stored)
                break
            name = name.removeprefix(prefix)
        else:
            left_out.append(stored)
            for prefix in (prefix for prefix in seconds if name.startswith(prefix)):
                averaged[prefix] = averaged.get(prefix, 0) + 1
    notes = [f"the second network {prefix}* was left out ({count} tensors)" for prefix, count in averaged.items()]
    return names, left_out, notes


def _only(tensors: Mapping[str, Tensor], stored: Sequence[str]) -> Tensor:
    """The tensor that is stored by these names, once or more often."""
    first = tensors[stored[0]]
    for other in stored[1:]:
        if not torch.equal(first, tensors[other]):
            raise ForeignError(f"two networks ({stored[0]} and {other}): save the state_dict of one alone")
    return first


def _own(tensors: Mapping[str, Tensor]) -> Renamed:
    """A file with our names, of a backbone or of a model with keys under ``backbone.``."""
    found = Renamed()
    with_prefix = any(name.startswith("backbone.") for name in tensors)
    for name, value in tensors.items():
        if (with_prefix and not name.startswith("backbone.")) or name.removeprefix("backbone.").startswith(HEADS):
            found.left_out.append(name)
        else:
            found.tensors[name.removeprefix("backbone.")] = value
    return found


def _vgg(tensors: Mapping[str, Tensor]) -> Renamed:
    """torchvision's vgg16_bn, or vgg16 without batch normalisation."""
    found = Renamed()
    weights = sorted(
        (int(match[1]) for name in tensors if (match := re.fullmatch(r"features\.(0|[1-9][0-9]{0,8})\.weight", name))),
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
    return found


def _take_norm(found: Renamed, tensors: Mapping[str, Tensor], theirs: str, ours: str) -> None:
    for part in BN_PARTS:
        if f"{theirs}.{part}" in tensors:
            found.tensors[f"{ours}.{part}"] = tensors[f"{theirs}.{part}"]


def _alexnet(tensors: Mapping[str, Tensor]) -> Renamed:
    """torchvision's AlexNet; what stands at other numbers keeps its name and is unexpected."""
    found = Renamed()
    convs = {f"features.{number}": f"convs.{index}" for index, number in enumerate((0, 3, 6, 8, 10))}
    for name, value in tensors.items():
        layer, _, part = name.rpartition(".")
        found.tensors[f"{convs.get(layer, layer)}.{part}"] = value
    return found
