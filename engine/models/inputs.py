"""How pixels become what a network reads, in words for others, and weights that were made for another scale of it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from engine.config.schema import InputName
from engine.data.pipeline import GRAY_MEAN, IMAGENET_MEAN, IMAGENET_STD
from engine.files import utf8_name
from engine.json_types import JsonObject
from engine.models.foreign import Renamed


def input_card(colour: InputName) -> JsonObject:
    """How pixels 0..255 become network input."""
    if colour == "gray":
        return {"channels": "mean of R, G, B", "scale": 1 / 255, "mean": [GRAY_MEAN], "std": [1.0]}
    if colour == "rgb255":
        return {"channels": "RGB", "scale": 1.0, "mean": [255 * mean for mean in IMAGENET_MEAN], "std": [1.0] * 3}
    return {"channels": "RGB", "scale": 1 / 255, "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}


def input_of(file: Path) -> InputName:
    """What a colour network in a file of ours or of PyTorch reads: pixels over their deviation, unless it says else.

    Args:
        file: weights. An exported backbone says it in its header, a checkpoint in the recipe beside it.
    """
    try:
        with utf8_name(file) as name, safe_open(name, "pt") as opened:
            said = (opened.metadata() or {}).get("input")
        if said is None and file.name == "model.safetensors":
            said = json.loads((file.parent / "meta.json").read_text())["recipe"]["model"]["input"]
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        return "rgb"
    return "rgb255" if said == "rgb255" else "rgb"


def take_input(found: Renamed, backbone: nn.Module, before: InputName, now: InputName) -> None:
    """Let the first convolution read colour pixels of another scale and give the same numbers.

    Args:
        found: weights by our names; rewritten in place.
        backbone: the network that they are for.
        before: what they read.
        now: what they shall read.
    """
    first = next((key for key, value in backbone.state_dict().items() if value.ndim == 4), "")
    weight = found.tensors.get(first)
    if now in (before, "gray") or weight is None or weight.ndim != 4 or weight.shape[1] != 3:
        return
    deviation = torch.tensor(IMAGENET_STD, dtype=torch.float64).mul(255).view(1, 3, 1, 1)
    factor = deviation if now == "rgb" else 1 / deviation
    found.tensors[first] = (weight.double() * factor).float()
    found.notes.append(f"the first convolution was rewritten from input {before} to input {now}")
