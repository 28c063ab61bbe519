"""timm itself (the extra ``timm``): loaded where a recipe wants it, and asked for a network."""

from __future__ import annotations

import importlib
import re
import sys
from functools import lru_cache
from types import ModuleType

from torch import library as operators
from torch import nn

from engine.config.backbones import TIMM, timm_lacks, unknown_timm_name
from engine.errors import RecipeError

WITHOUT_KERNELS = "operator torchvision::"
DECLARED = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
"""Operators that torchvision describes when it is loaded, whether its compiled part has defined them or not."""
SIZES: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""Keywords with which families of networks take images of any size; the last for those that do anyway."""
_UNKNOWN_KEYWORD = re.compile("unexpected keyword|multiple values for keyword")
_kept: list[operators.Library] = []


@lru_cache(maxsize=1)
def timm() -> ModuleType:
    """The module.

    Raises:
        RecipeError: it, or torchvision, which it needs, is not installed or cannot be loaded.
    """
    if lack := timm_lacks():
        raise RecipeError(f"a model.backbone of timm {lack}")
    try:
        _load_torchvision()
        return importlib.import_module("timm")
    except Exception as error:  # what a library that does not fit raises is its own
        text = " ".join(str(error).split()) or type(error).__name__
        raise RecipeError(
            f"timm cannot be loaded ({text}): install releases of timm, torchvision and torch that go together"
        ) from None


def _load_torchvision() -> None:
    """Also where its compiled part was built for another PyTorch, as its wheels for CUDA beside a PyTorch for CPUs.

    timm uses nothing of that part; but torchvision ends with an error where operators of it are missing.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if WITHOUT_KERNELS not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = operators.Library("torchvision", "FRAGMENT")
        for operator in DECLARED:
            library.define(operator)
        _kept.append(library)  # it takes its operators along when it goes
        importlib.import_module("torchvision")


def create(backbone: str, in_channels: int, *, dilated: bool, pretrained: bool = False) -> nn.Module:
    """A network of timm with random weights from PyTorch's global generator, or with its own.

    Args:
        backbone: ``timm/NAME``.
        in_channels: of its input.
        dilated: with output stride 8.
        pretrained: download its weights, or take what was downloaded before.

    Raises:
        RecipeError: there is no such network, or it has no dilated form.
    """
    library = timm()
    if problem := unknown_timm_name(backbone):
        raise RecipeError(f"model.backbone: {problem}")
    fixed = {"in_chans": in_channels, "pretrained": pretrained, **({"output_stride": 8} if dilated else {})}
    for size in SIZES:
        try:
            network: nn.Module = library.create_model(backbone.removeprefix(TIMM), **fixed, **size)
            return network
        except TypeError as error:
            if not _UNKNOWN_KEYWORD.search(str(error)):
                raise
        except (AssertionError, NotImplementedError):
            if not dilated:
                raise
        except RuntimeError as error:
            if "tag" in str(error):
                raise RecipeError(f"model.backbone {backbone}: timm has no such tag{_tags(backbone)}") from None
            raise
    raise RecipeError(f"model.dilated: {backbone} has no dilated form; write false, or use another encoder")


def _tags(backbone: str) -> str:
    """Names with tags of weights that there are, as the end of a sentence."""
    name = backbone.removeprefix(TIMM).partition(".")[0]
    known = timm().list_pretrained(f"{name}.*")
    return f"; write {', '.join(TIMM + one for one in known[:4])}" if known else f"; write {TIMM}{name}"


def layer_numbers(network: nn.Module, backbone: str) -> dict[str, int]:
    """The layer of each parameter, from 0 at the input, as timm's own layer-wise decay counts them.

    Raises:
        RecipeError: timm does not say what this network's layers are.
    """
    if not hasattr(network, "group_matcher"):
        raise RecipeError(
            f"timm does not say what the layers of {backbone} are: leave optim.layer_decay at 1, segment.reset_layers"
            " at 0 and model.freeze at none or backbone"
        )
    models = importlib.import_module("timm.models")
    found: dict[str, int] = models.group_parameters(network, network.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
    return found
