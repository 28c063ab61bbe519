"""Interpolation and pooling as matrix products: PyTorch's own have no deterministic backward pass on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from engine.host import send

SEPARABLE = ("bilinear", "bicubic")


class DeviceFriendly(TorchFunctionMode):
    """Within it other libraries' code does what suits a GPU, with the same values up to rounding.

    ``F.interpolate`` of two axes is computed as two matrix products, for kinds that treat axes apart: for tables that
    are parameters, such as position embeddings. What lies on the host is sent without waiting for the GPU.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            return func(*args, **kwargs)
        if func is F.interpolate and kwargs.get("mode") in SEPARABLE:
            return resample(args[0], kwargs["size"], kwargs["mode"], antialias=bool(kwargs.get("antialias")))
        if func is torch.Tensor.to and isinstance(kwargs.get("device"), torch.device):
            return func(send(args[0], kwargs["device"]), *args[1:], **kwargs)
        return func(*args, **kwargs)


def resample(maps: Tensor, size: Sequence[int], mode: str, *, antialias: bool) -> Tensor:
    """``F.interpolate(maps, size, mode, antialias)`` of maps (B, C, h, w), half-pixel centres, differentiable."""
    rows, columns = (
        interpolation(old, int(new), mode, antialias, maps.device, maps.dtype)
        for old, new in zip(maps.shape[2:], size, strict=True)
    )
    return rows @ maps @ columns.T


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)  # training, too, uses what an evaluation has made
def interpolation(
    size: int, target: int, mode: str, antialias: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Matrix (target, size) of one axis: what ``F.interpolate`` makes of unit vectors."""
    units = torch.eye(size, dtype=torch.float64, device="cpu").view(1, size, size, 1).expand(-1, -1, -1, 2)
    with torch.no_grad(), torch._C.DisableTorchFunction():
        found = F.interpolate(units, size=(target, 2), mode=mode, align_corners=False, antialias=antialias)
    return send(found[0, :, :, 0].T.contiguous().to(dtype), device)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _pooling(size: int, target: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Matrix (target, size) of adaptive average pooling along one axis."""
    found = torch.zeros((target, size), dtype=dtype, device="cpu")
    for cell in range(target):
        first, last = cell * size // target, -(-(cell + 1) * size // target)
        found[cell, first:last] = 1 / (last - first)
    return send(found, device)


def average(maps: Tensor, side: int) -> Tensor:
    """Adaptive average pooling of (B, C, h, w) to (B, C, side, side), as ``F.adaptive_avg_pool2d`` computes it."""
    exported = torch.compiler.is_compiling()
    # What torch.export makes stands for a value and is none: it must not be kept.
    matrix = _pooling.__wrapped__ if exported else _pooling
    with nullcontext() if exported else torch.autocast(maps.device.type, enabled=False):
        rows, columns = (matrix(length, side, maps.device, maps.dtype) for length in maps.shape[2:])
        return rows @ maps @ columns.T
