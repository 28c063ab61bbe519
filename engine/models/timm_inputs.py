"""Which pixels weights for an encoder of timm were made for: its names alone do not tell, as tags of a name differ."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from engine.config.backbones import TIMM, is_timm
from engine.errors import CheckpointError
from engine.files import utf8_name
from engine.models.timm_backbone import TimmBackbone
from engine.models.timm_library import timm

Pixels = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation of R, G and B, of pixels from 0 to 1."""


def header(backbone: TimmBackbone) -> dict[str, str]:
    """What an exported file says of the encoder that it is of, as texts."""
    return {"backbone": backbone.name, "mean": json.dumps(backbone.input_mean), "std": json.dumps(backbone.input_std)}


def notes_on_pixels(backbone: TimmBackbone, path: Path) -> list[str]:
    """What is to be told of the pixels that an encoder reads and the weights of a file may not be made for.

    Raises:
        CheckpointError: the file is ours and says that they were made for others.
    """
    if backbone.in_channels != 3:
        return []
    reads = (backbone.input_mean, backbone.input_std)
    made_for = _said(path)
    if made_for is not None and made_for[1] != reads:
        raise CheckpointError(
            f"{path} was trained on pixels of {_words(made_for[1])}, and {backbone.name} reads {_words(reads)}: write"
            f" model.backbone={made_for[0]}"
        )
    name, _, tag = backbone.name.removeprefix(TIMM).partition(".")
    others = [] if tag or made_for else [one for one in timm().list_pretrained(f"{name}.*") if _pixels(one) != reads]
    if not others:
        return []
    more = f", such as {', '.join(TIMM + one for one in others[:3])}"
    return [
        f"pixels are normalised by {_words(reads)}, as the default weights of {name} want; weights that want others"
        f" need a tag in model.backbone{more}"
    ]


def _said(path: Path) -> tuple[str, Pixels] | None:
    """Name and pixels of the encoder that a file of ours is of: an export by its header, a checkpoint by its recipe."""
    try:
        with utf8_name(path) as name, safe_open(name, "pt") as opened:
            found: dict[str, str] = opened.metadata() or {}
        if "mean" in found:
            return found["backbone"], (_three(json.loads(found["mean"])), _three(json.loads(found["std"])))
        backbone = json.loads((path.parent / "meta.json").read_text())["recipe"]["model"]["backbone"]
        pixels = _pixels(backbone.removeprefix(TIMM)) if is_timm(backbone) else None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return None if pixels is None else (backbone, pixels)


def _pixels(name: str) -> Pixels | None:
    """What timm says that ``NAME`` or ``NAME.TAG`` reads; None if it says nothing."""
    models = importlib.import_module(f"{timm().__name__}.models")
    try:
        cfg = models.get_pretrained_cfg(name)
    except RuntimeError:
        return None
    return None if cfg is None or not cfg.mean or not cfg.std else (_three(cfg.mean), _three(cfg.std))


def _three(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _words(pixels: Pixels) -> str:
    mean, std = (", ".join(f"{value:g}" for value in values) for values in pixels)
    return f"mean {mean} and deviation {std}"
