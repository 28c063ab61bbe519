"""The optimisers: SGD as in the reference release, and AdamW. Biases and normalisations do not decay."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from engine.config.optim import HeadedOptimConfig, OptimConfig
from engine.layout import laid_out_as
from engine.models.vgg import Backbone


class _Updating(torch.optim.Optimizer):
    """``update``, which does what ``step`` does; a method of that name is wrapped again for profilers."""

    def _update(self) -> None:
        raise NotImplementedError

    def update(self) -> None:
        """Change the parameters by their gradients."""
        if self.defaults["fused"]:
            self._make_ready()
        self._update()

    def _make_ready(self) -> None:
        """What a fused kernel takes for granted: a gradient lies in memory as its parameter does. That of a parameter
        with sides of 1 may have other strides there, and is refused on a GPU."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad = laid_out_as(parameter, parameter.grad)


class Sgd(_Updating, torch.optim.SGD):
    """``torch.optim.SGD`` to the bit, without what prepares its methods for ``torch.compile`` and profilers.

    Those wrappers load ``torch._dynamo`` when they are first called, 2 s that every trainer would pay for nothing.
    """

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    _update = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))

    def _make_ready(self) -> None:
        """And velocities of 0, which change no update: a fused kernel cannot begin those of some parameters later than
        those of others, as where a parameter had no gradient in the first step."""
        super()._make_ready()
        for group in self.param_groups if self.defaults["momentum"] else ():
            for parameter in group["params"]:
                state = self.state[parameter]
                if parameter.grad is not None and state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(parameter)


class AdamW(_Updating, torch.optim.AdamW):
    """``torch.optim.AdamW`` to the bit, without what loads ``torch._dynamo``: see ``Sgd``."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    _update = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


Optimiser = Sgd | AdamW
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def build_optimiser(module: nn.Module, config: OptimConfig) -> Optimiser:
    """The optimiser of a recipe over all trainable parameters, in groups of weights, biases and norms.

    With SGD biases learn ``bias_lr_factor`` times as fast (PAPER 2.1: lr_mult 1 / 2, BN 1; biases and BN no decay).
    AdamW divides each gradient by its own size, so a bias already moves by about the rate in each step: it has no such
    factor. With a ``layer_decay`` below 1 each layer of the backbone has groups of its own, with a
    ``backbone_lr_factor`` the backbone.

    Where all parameters lie on CUDA devices PyTorch's fused kernels update them: a few launches a step instead of some
    for each operation. On a CPU nothing is fused, so that updates keep their bits.

    Args:
        module: on the device where it is trained.
    """
    groups = _groups(module, config)
    parameters = [parameter for group in groups for parameter in group.params]
    several = [group._asdict() for group in groups]
    fused = True if all(parameter.is_cuda for parameter in parameters) else None
    if config.optimiser == "adamw":
        return AdamW(several, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=0.0, fused=fused)
    return Sgd(several, lr=config.lr, momentum=config.momentum, fused=fused)


class ParameterGroup(NamedTuple):
    """Parameters that learn at ``lr_factor`` times the rate of the schedule, and decay alike."""

    params: list[nn.Parameter]
    lr_factor: float
    weight_decay: float


def _groups(module: nn.Module, config: OptimConfig) -> list[ParameterGroup]:
    """Parameters that learn at one rate and decay alike; those with the most layers above them come last."""
    above = layers_above(module) if config.layer_decay < 1 else {}
    of_backbone = config.backbone_lr_factor if isinstance(config, HeadedOptimConfig) else 1.0
    apart = set(_backbone_of(module).parameters()) if of_backbone != 1 else set()
    found: dict[tuple[int, bool, str], list[nn.Parameter]] = {}
    undecayed = set(_undecayed(module))
    for part in module.modules():
        is_norm = isinstance(part, NORMS)
        for name, parameter in part.named_parameters(recurse=False):
            kind = "norms" if is_norm else "biases" if name == "bias" else "weights"
            kind = "norms" if kind == "weights" and parameter in undecayed else kind
            if parameter.requires_grad:
                found.setdefault((above.get(parameter, 0), parameter in apart, kind), []).append(parameter)
    factors = {"weights": 1.0, "biases": 1.0 if config.optimiser == "adamw" else config.bias_lr_factor, "norms": 1.0}
    groups: list[ParameterGroup] = []
    for depth, inside in sorted({(depth, inside) for depth, inside, _ in found}):
        share = config.layer_decay**depth * (of_backbone if inside else 1.0)
        for kind, factor in factors.items():
            decay = config.weight_decay if kind == "weights" else 0.0
            if (depth, inside, kind) in found:
                rate = factor * share
                groups.append(ParameterGroup(found[depth, inside, kind], rate, decay))
    return groups


def _undecayed(module: nn.Module) -> Iterator[nn.Parameter]:
    """What the backbones inside say so of."""
    for backbone in (part for part in module.modules() if isinstance(part, Backbone)):
        own = dict(backbone.named_parameters())
        yield from (own[name] for name in backbone.undecayed())


def _backbone_of(module: nn.Module) -> Backbone:
    backbone = module.backbone
    assert isinstance(backbone, Backbone)
    return backbone


def layers_above(module: nn.Module) -> dict[nn.Parameter, int]:
    """How many layers stand above each parameter of the module's backbone, as its ``layer_keys`` counts them.

    What is trained beside the backbone counts as one layer, on top of it; its own parameters are not listed. (BEiT,
    Bao et al. 2022, and the libraries after it: the head has no factor, the last layer below it one.)
    """
    backbone = _backbone_of(module)
    layers, own = backbone.layer_keys(), dict(backbone.named_parameters())
    found = {own[key]: len(layers) - number for number, layer in enumerate(layers, 1) for key in layer if key in own}
    headed = any(parameter.requires_grad and parameter not in found for parameter in module.parameters())
    return {parameter: count + headed for parameter, count in found.items()}


def learning_rate(config: OptimConfig, step: int, total: int) -> float:
    """Learning rate of step ``step`` (0-based) of ``total``.

    It rises linearly over ``warmup_steps`` to the rate that the schedule has then, and goes on from there without a
    jump. ``poly`` and ``cosine`` begin to fall after the warm-up, from ``lr``, over the steps that are left (as the
    training of torchvision and mmsegmentation); milestones of ``step`` are fractions of the whole stage.
    """
    warmup = config.warmup_steps
    if step < warmup:
        return _scheduled(config, warmup, total) * (step + 1) / warmup
    return _scheduled(config, step, total)


def _scheduled(config: OptimConfig, step: int, total: int) -> float:
    """The rate without warm-up."""
    if config.schedule == "step":
        share = step / total
        return config.lr * config.gamma ** sum(share >= milestone for milestone in config.milestones)
    # Where the warm-up fills the stage nothing is left to fall over.
    share = (step - config.warmup_steps) / max(total - config.warmup_steps, 1)
    if config.schedule == "poly":
        return config.lr * float((1 - share) ** 0.9)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * share))
    return config.lr


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of the rate."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_factor"]


def clip(module: nn.Module, config: OptimConfig) -> None:
    """Limit the gradient norm, if the recipe says so."""
    if config.clip_norm:
        nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
