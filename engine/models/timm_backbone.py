"""Encoders of timm as backbones: maps at several strides of images of any size.

Shapes: B batch, C channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TypedDict

import torch
from torch import Tensor, nn

from engine.data.pipeline import IMAGENET_MEAN, IMAGENET_STD
from engine.errors import RecipeError
from engine.json_types import JsonObject
from engine.models.foreign import NET
from engine.models.inputs import input_card
from engine.models.resampling import DeviceFriendly, average
from engine.models.resnet import EMBED_SIDE
from engine.models.timm_library import create, layer_numbers
from engine.models.vgg import FINEST, Backbone, HyperLayers

LEVELS = 4
"""Maps that are read of an encoder whose maps have one scale: after each quarter of its blocks (DPT, Ranftl 2021)."""
PROBES = ((97, 131), (300, 260), (64, 32), (224, 224))
"""Heights and widths that every encoder must take, pixels."""


class MapInfo(TypedDict):
    """What timm says of one of an encoder's maps: its channels, and its scale in pixels."""

    num_chs: int
    reduction: int


class Deterministic:
    """Placed before a vision transformer's class: its positions are computed as suits a GPU."""

    def _pos_embed(self, *args: object, **kwargs: object) -> object:
        with DeviceFriendly():
            return super()._pos_embed(*args, **kwargs)  # type: ignore[misc]


class TimmBackbone(Backbone):
    """One of timm's encoders without its classifier.

    ``features`` gives every stage's map of a hierarchical encoder, and of one whose maps all have one scale (a vision
    transformer) those after each quarter of its blocks. The encoder's final normalisation is applied where it has one:
    to the last map, and in vision transformers to each. Sides that are no multiple of the largest scale (of the patch)
    are padded with what lies outside of images, and maps cut to the cells that touch the image.

    The input is what our other backbones read, ImageNet's mean and deviation; an encoder that was made for others gets
    them, by a shift and a factor inside.

    Args:
        net: the network, changed in place.
    """

    def __init__(self, net: nn.Module, name: str, in_channels: int) -> None:
        nn.Module.__init__(self)
        infos = _levels(net, name)
        self.name = name
        self.in_channels = in_channels
        self.indices = tuple(number for number, _ in infos)
        channels, scales = ([int(info[key]) for _, info in infos] for key in ("num_chs", "reduction"))
        self.feature_channels, self.feature_scale = channels[-1], scales[-1]
        self.hyper_channels, self.hyper_scales = [in_channels, *channels], [1, *scales]
        self.multiple = max(scales)
        self.head_std: float | None = None
        net.prune_intermediate_layers(list(self.indices), prune_norm=False, prune_head=True)  # type: ignore[operator]
        if hasattr(type(net), "_pos_embed"):
            net.__class__ = type(type(net).__name__, (Deterministic, type(net)), {})
        _without_chance(net)
        self.net = net
        self._register_input(getattr(net, "pretrained_cfg", None) or {})

    def _register_input(self, cfg: Mapping[str, Sequence[float]]) -> None:
        """Factor and shift from our input to what the encoder's weights were made for; none for gray images."""
        mean, std = (tuple(cfg.get(key) or ours) for key, ours in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)))
        self.input_mean: tuple[float, ...] = IMAGENET_MEAN
        self.input_std: tuple[float, ...] = IMAGENET_STD
        self.factor: Tensor
        self.shift: Tensor
        self.rescales = self.in_channels == 3 == len(mean) and (mean, std) != (IMAGENET_MEAN, IMAGENET_STD)
        if self.rescales:
            self.input_mean, self.input_std = mean, std
            own, theirs = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (IMAGENET_STD, std))
            shift = (torch.tensor(IMAGENET_MEAN, dtype=torch.float64) - torch.tensor(mean)).view(1, 3, 1, 1) / theirs
            self.register_buffer("factor", (own / theirs).float(), persistent=False)
            self.register_buffer("shift", shift.float(), persistent=False)

    def features(self, x: Tensor) -> tuple[HyperLayers, Tensor]:
        """The input, and the encoder's maps (B, C, ceil(H / s), ceil(W / s)) of scales s; the last of them again."""
        height, width = x.shape[2:]
        inputs = self.padded(x)
        if self.rescales:
            inputs = inputs * self.factor + self.shift
        maps = self.net.forward_intermediates(  # type: ignore[operator]
            inputs, indices=list(self.indices), norm=True, output_fmt="NCHW", intermediates_only=True
        )
        layers: HyperLayers = [(x, 1)]
        for features, scale in zip(maps, self.hyper_scales[1:], strict=True):
            layers.append((features[:, :, : -(-height // scale), : -(-width // scale)], scale))
        return layers, layers[-1][0]

    def embed(self, x: Tensor) -> Tensor:
        """The last map averaged to 4 x 4 where it is larger, flattened: the node feature of the match stage."""
        last = self.forward(x)
        if min(last.shape[2:]) > EMBED_SIDE:
            last = average(last, EMBED_SIDE)
        return last.flatten(1)

    def layers(self) -> list[tuple[nn.Module, ...]]:
        """Not asked of an encoder whose layers own parameters of their own: see ``layer_keys``."""
        raise NotImplementedError

    def undecayed(self) -> frozenset[str]:
        """What timm's own groups for weight decay leave out: factors of layers, tokens, positions, tables of biases."""
        listed: set[str] = getattr(self.net, "no_weight_decay", set)()
        named = self.net.named_parameters()
        return frozenset(NET + name for name, parameter in named if parameter.ndim <= 1 or name in listed)

    @property
    def stage_maps(self) -> tuple[int, ...]:
        """Every map from scale FINEST on."""
        return tuple(number for number, scale in enumerate(self.hyper_scales) if scale >= FINEST)

    def input_values(self) -> JsonObject:
        """What the encoder itself reads, for a card of its input."""
        if self.in_channels == 1:
            return input_card("gray")
        return {**input_card("rgb"), "mean": list(self.input_mean), "std": list(self.input_std)}

    def layer_keys(self) -> list[list[str]]:
        """Names of the state of each layer, by the groups that timm's own layer-wise decay goes by."""
        groups = layer_numbers(self.net, self.name)
        numbers = sorted(set(groups.values()))
        owners = {name.rpartition(".")[0]: groups[name] for name in groups}
        found: dict[int, list[str]] = {number: [] for number in numbers}
        for key in self.net.state_dict():
            # Statistics belong to the layer of the weights beside them.
            number = groups.get(key, owners.get(key.rpartition(".")[0]))
            if number is not None:
                found[number].append(NET + key)
        return [found[number] for number in numbers]


def _without_chance(net: nn.Module) -> None:
    """Drop nothing at random in training: a step that is computed again, or by several processes, is the same step."""
    for part in net.modules():
        if type(part).__name__ == "DropPath":
            vars(part)["drop_prob"] = 0.0
        elif isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0


def _levels(net: nn.Module, name: str) -> list[tuple[int, MapInfo]]:
    """Numbers and descriptions of the maps that are read.

    Raises:
        RecipeError: the encoder gives none.
    """
    infos: Sequence[MapInfo] = list(getattr(net, "feature_info", ()))
    if not infos or not hasattr(net, "forward_intermediates") or not hasattr(net, "prune_intermediate_layers"):
        raise RecipeError(f"model.backbone {name} gives no maps at several strides: write another encoder")
    numbered = list(enumerate(infos))
    if len({info["reduction"] for info in infos}) == 1 and len(infos) > LEVELS:
        numbered = [numbered[len(infos) * quarter // LEVELS - 1] for quarter in range(1, LEVELS + 1)]
    return numbered


@contextmanager
def _seeded(generator: torch.Generator | None) -> Iterator[None]:
    """PyTorch's global generator, from which timm draws, in a state that ``generator`` determines; then as before."""
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    was = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(was)


def timm_encoder(
    name: str,
    in_channels: int,
    generator: torch.Generator | None = None,
    *,
    dilated: bool = False,
    pretrained: bool = False,
) -> TimmBackbone:
    """``timm/NAME`` with random weights that ``generator`` determines, or timm's own.

    Raises:
        RecipeError: timm is not installed, has no such network, or it is none that can be read so.
    """
    if problem := unreadable(name, in_channels, dilated):
        raise RecipeError(f"model.backbone {name} {problem}: write another encoder")
    with _seeded(generator):
        net = create(name, in_channels, dilated=dilated, pretrained=pretrained)
    return TimmBackbone(net, name, in_channels)


def unseen(name: str, in_channels: int, dilated: bool) -> TimmBackbone:
    """The encoder without numbers, on the device ``meta``, in evaluation mode.

    Raises:
        RecipeError: see ``create`` and ``_levels``.
    """
    with torch.device("meta"):
        return TimmBackbone(create(name, in_channels, dilated=dilated), name, in_channels).eval()


@lru_cache(maxsize=16)
def unreadable(name: str, in_channels: int, dilated: bool) -> str:
    """Why an encoder cannot be read at several strides of images of any size; "" if it can. Nothing is computed.

    Raises:
        RecipeError: see ``create`` and ``_levels``.
    """
    backbone = unseen(name, in_channels, dilated)
    for height, width in PROBES:
        try:
            layers, _ = backbone.features(torch.empty((1, in_channels, height, width), device="meta"))
        except (AssertionError, RuntimeError, ValueError, TypeError, NotImplementedError):
            return f"does not take images of {height} x {width} pixels"
        shapes = [tuple(maps.shape[1:]) for maps, _ in layers]
        scales = zip(backbone.hyper_channels, backbone.hyper_scales, strict=True)
        if shapes != [(channels, -(-height // scale), -(-width // scale)) for channels, scale in scales]:
            return "gives maps of other sizes than it says"
    return ""
