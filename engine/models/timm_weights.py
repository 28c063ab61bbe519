"""Weights for encoders of timm: files of DINO, DINOv2, MAE and others in timm's names, and timm's own download.

timm's networks, and vision transformers of most others, have the same names; what differs is put right here, before
``engine.models.foreign`` looks for the network in the file, and position embeddings afterwards.
"""

from __future__ import annotations

import importlib
import logging
import math
import re
import socket
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from engine.config.backbones import TIMM
from engine.errors import CheckpointError
from engine.models.foreign import NET, Renamed, rename
from engine.models.resampling import resample
from engine.models.timm_backbone import TimmBackbone
from engine.models.timm_library import create, timm

DEEPEST_PREFIX = 3
"""Parts of a name that may stand before a network's own, as in ``module.encoder_q.``."""
HUB_FILE = "model.safetensors"
ANSWER_SECONDS = 10.0
"""How long a server may say nothing."""
_CHUNKED = re.compile(r"(^|\.)blocks\.\d+\.(\d+)\.")
_DINO = (
    (re.compile(r"(^|\.)register_tokens$"), r"\1reg_token"),
    (re.compile(r"\.mlp\.w12\."), ".mlp.fc1."),
    (re.compile(r"\.mlp\.w3\."), ".mlp.fc2."),
)
"""Names of DINOv2 that are others in timm."""
PREFIX_TOKENS = (0, 1, 2, 5)
"""How many positions may stand before those of the patches: none, a class token, and with it others."""


def rename_for_timm(tensors: Mapping[str, Tensor], backbone: TimmBackbone) -> Renamed:
    """Tensors of a state dict by our names of an encoder of timm; position embeddings in its size.

    Raises:
        ForeignError: two networks fit and nothing tells which is meant.
    """
    ours = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    notes: list[str] = []
    found = rename(_timms_names(tensors, ours, notes), backbone.name, ours)
    if found.tensors.keys() != ours.keys():
        for prefix in _prefixes(tensors):
            inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            converted = _converted(inside, backbone.net)
            other = None if converted is None else rename(converted, backbone.name, ours)
            if other is not None and _filled(other, ours) > _filled(found, ours):
                left_out = [key for key in tensors if not key.startswith(prefix)]
                found = Renamed(other.tensors, [*left_out, *other.left_out], other.notes)
                notes = ["names were converted by timm"]
    _leave_pruned(found, ours, backbone)
    _fit_positions(found, backbone, notes)
    found.notes.extend(notes)
    return found


def _filled(found: Renamed, ours: Mapping[str, tuple[int, ...]]) -> int:
    """How many of our keys have a tensor of their shape."""
    return sum(tuple(value.shape) == ours.get(key) for key, value in found.tensors.items())


def _prefixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """What may stand before the names of a network: nothing, or the first parts of most names."""
    counts: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")[:-1]
        counts.update(".".join(parts[: depth + 1]) + "." for depth in range(min(len(parts), DEEPEST_PREFIX)))
    return ["", *(prefix for prefix, count in counts.most_common() if count > len(tensors) / 2)]


def _leave_pruned(found: Renamed, ours: Mapping[str, object], backbone: TimmBackbone) -> None:
    """What timm's whole network has, and the encoder, of which it was cut off, does not, is another part; in place."""
    more = found.tensors.keys() - ours.keys()
    if not more:
        return
    with torch.device("meta"):
        whole = {NET + key for key in create(backbone.name, backbone.in_channels, dilated=False).state_dict()}
    for key in sorted(more & whole):
        del found.tensors[key]
        found.left_out.append(key.removeprefix(NET))


def _timms_names(tensors: Mapping[str, Tensor], ours: Mapping[str, object], notes: list[str]) -> dict[str, Tensor]:
    """The tensors of a vision transformer as timm names them, whatever stands before."""
    if f"{NET}blocks.0.attn.qkv.weight" not in ours:
        return dict(tensors)
    found = {}
    for name, value in tensors.items():
        new = _CHUNKED.sub(r"\1blocks.\2.", name)
        for pattern, replacement in _DINO:
            new = pattern.sub(replacement, new)
        found[new] = value
    changed = sum(new not in tensors for new in found)
    if changed:
        notes.append(f"{changed} names of DINOv2 were read as timm's")
    return found


def _converted(tensors: Mapping[str, Tensor], net: nn.Module) -> dict[str, Tensor] | None:
    """What timm makes of a file of the network's authors; None if it has nothing for that."""
    module = importlib.import_module(type(net).__mro__[_first_of_timm(net)].__module__)
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        found = convert(dict(tensors), net)
    except (KeyError, ValueError, RuntimeError, AssertionError, AttributeError, IndexError, TypeError):
        return None
    return {key: value for key, value in found.items() if isinstance(value, Tensor)}


def _first_of_timm(net: nn.Module) -> int:
    return next(number for number, kind in enumerate(type(net).__mro__) if kind.__module__.startswith("timm."))


def _fit_positions(found: Renamed, backbone: TimmBackbone, notes: list[str]) -> None:
    """Position embeddings for the encoder's grid, from those of another one, in place.

    Those of the class token are added to it where the encoder has none for it.
    """
    key = f"{NET}pos_embed"
    wanted, value = backbone.state_dict().get(key), found.tensors.get(key)
    if wanted is None or value is None or wanted.shape == value.shape or {wanted.ndim, value.ndim} != {3}:
        return
    grid = tuple(int(side) for side in backbone.net.patch_embed.grid_size)  # type: ignore[union-attr]
    own_prefix = wanted.shape[1] - math.prod(grid)
    prefix = next((n for n in (own_prefix, *PREFIX_TOKENS) if _is_square(value.shape[1] - n)), None)
    if prefix is None or value.shape[2] != wanted.shape[2]:
        return
    first, patches = value[:, :prefix], value[:, prefix:]
    if prefix and not own_prefix:
        token = found.tensors.get(f"{NET}cls_token")
        if token is None or token.shape != first[:, :1].shape:
            return
        found.tensors[f"{NET}cls_token"] = token + first[:, :1]
        notes.append("the position embedding of the class token was added to it")
        first = first[:, :0]
    if first.shape[1] != own_prefix:
        return
    side = math.isqrt(patches.shape[1])
    if (side, side) != grid:
        maps = patches.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        patches = resample(maps, grid, "bicubic", antialias=True).permute(0, 2, 3, 1).flatten(1, 2).to(value.dtype)
        notes.append(f"position embeddings were resampled from {side} x {side} to {grid[0]} x {grid[1]}")
    found.tensors[key] = torch.cat([first, patches], dim=1)


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count


def timm_weights_file(backbone: str) -> Path:
    """The file of timm's own weights for ``timm/NAME`` or ``timm/NAME.TAG``, downloaded unless it was before.

    Raises:
        CheckpointError: timm has none, or they were not downloaded before and cannot be now.
        RecipeError: timm is not installed.
    """
    name = backbone.removeprefix(TIMM)
    cfg = _weights_of(name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        tags = timm().list_pretrained(f"{name.partition('.')[0]}.*")
        others = (
            f"; write model.backbone={TIMM}{tags[0]}" if tags else "; write a file, or model.weights= for random ones"
        )
        raise CheckpointError(f"model.weights timm: timm has no weights of {name}{others}")
    try:
        return _from_hub(str(cfg.hf_hub_id)) if cfg.hf_hub_id else _from_address(str(cfg.url))
    except Exception as error:  # what libraries and servers raise here is theirs
        text = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"model.weights timm: the weights of {name} cannot be downloaded ({text or type(error).__name__}):"
            " go online once, or write a file"
        ) from None


class PretrainedWeights(Protocol):
    """timm's ``PretrainedCfg``, of which this is used: where weights lie."""

    hf_hub_id: str | None
    url: str | None


def _weights_of(name: str) -> PretrainedWeights | None:
    """What timm knows of the weights of a network; None if there is no such network, or no such tag."""
    models = importlib.import_module(f"{timm().__name__}.models")
    try:
        found: PretrainedWeights | None = models.get_pretrained_cfg(name)
        return found
    except RuntimeError:
        return None


def _from_hub(repository: str) -> Path:
    """The file of a repository of the Hugging Face hub, from its folder on this machine if it lies there."""
    hub = importlib.import_module("huggingface_hub")
    kept = hub.try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(kept, str):
        return Path(kept)
    _reach(str(hub.constants.ENDPOINT))
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return Path(hub.hf_hub_download(repository, HUB_FILE, etag_timeout=ANSWER_SECONDS))


def _from_address(address: str) -> Path:
    target = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    if not target.is_file():
        _reach(address)
        target.parent.mkdir(parents=True, exist_ok=True)
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(ANSWER_SECONDS)
        try:
            torch.hub.download_url_to_file(address, str(target), progress=False)
        finally:
            socket.setdefaulttimeout(before)
    return target


def _reach(address: str) -> None:
    """Raises OSError where nobody answers there: libraries would try for a minute."""
    try:
        asked = urllib.request.Request(address, method="HEAD")  # noqa: S310  (the hub's address or timm's)
        with urllib.request.urlopen(asked, timeout=ANSWER_SECONDS):  # noqa: S310
            pass
    except urllib.error.HTTPError:
        return  # it has answered
    except urllib.error.URLError as error:
        raise OSError(f"{address} cannot be reached: {error.reason}") from None
