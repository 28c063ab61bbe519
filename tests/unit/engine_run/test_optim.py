"""SGD of the reference release: who learns at which rate and who decays; the schedules."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Literal

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from engine.config.schema import OptimConfig
from engine.optim import Optimiser, build_optimiser, clip, learning_rate, set_learning_rate


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.bn = nn.BatchNorm2d(2)


def test_build_optimiser_update_equals_the_formula_by_hand() -> None:
    torch.manual_seed(0)
    net = Net()
    config = OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.01, bias_lr_factor=2.0)
    optimiser = build_optimiser(net, config)
    rules = {"conv.weight": (1.0, 0.01), "conv.bias": (2.0, 0.0), "bn.weight": (1.0, 0.0), "bn.bias": (1.0, 0.0)}
    expected = {name: value.detach().clone() for name, value in net.named_parameters()}
    speed = {name: torch.zeros_like(value) for name, value in expected.items()}
    for step in range(3):
        set_learning_rate(optimiser, 0.1 / (step + 1))
        for name, parameter in net.named_parameters():
            parameter.grad = torch.full_like(parameter, 0.5 + step)
            factor, decay = rules[name]
            speed[name] = 0.9 * speed[name] + parameter.grad + decay * expected[name]
            expected[name] = expected[name] - 0.1 / (step + 1) * factor * speed[name]
        optimiser.update()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name])


def assert_updates_alike(nets: list[Net], ours: Optimiser, theirs: torch.optim.Optimizer) -> None:
    """Six updates of two networks by the same gradients; after three each goes on from what the other has kept."""
    for step in range(6):
        values = [torch.randn(parameter.shape) for parameter in nets[0].parameters()]
        for net in nets:
            for parameter, value in zip(net.parameters(), values, strict=True):
                parameter.grad = value.clone()
        if step == 3:
            kept = copy.deepcopy(ours.state_dict())
            ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
            theirs.load_state_dict(kept)
        ours.update()
        theirs.step()
        for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            assert torch.equal(one, other)


def test_optimiser_updates_and_keeps_what_that_of_pytorch_does_to_the_bit() -> None:
    torch.manual_seed(0)
    nets = [Net(), Net()]
    nets[1].load_state_dict(nets[0].state_dict())
    ours = build_optimiser(nets[0], OptimConfig(lr=0.1, momentum=0.9, weight_decay=0.01))
    groups = [
        {**group, "params": [dict(nets[1].named_parameters())[name] for name in names]}
        for group, names in zip(
            ours.param_groups, (["conv.weight"], ["conv.bias"], ["bn.weight", "bn.bias"]), strict=True
        )
    ]
    theirs = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    assert_updates_alike(nets, ours, theirs)
    assert not any(parameter.grad is not None and parameter.grad.requires_grad for parameter in nets[0].parameters())


def test_build_optimiser_holds_every_parameter_once() -> None:
    net = nn.Sequential(Net(), nn.Linear(2, 2), nn.LayerNorm(2))
    optimiser = build_optimiser(net, OptimConfig())
    held = [id(p) for group in optimiser.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in net.parameters())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (OptimConfig(lr=1, schedule="constant"), [1, 1, 1, 1]),
        (OptimConfig(lr=1, schedule="step", milestones=(0.5, 0.75), gamma=0.1), [1, 1, 0.1, 0.01]),
        (OptimConfig(lr=1, schedule="poly"), [1, 0.75**0.9, 0.5**0.9, 0.25**0.9]),
        (OptimConfig(lr=1, schedule="cosine"), [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]),
        (OptimConfig(lr=1, schedule="constant", warmup_steps=2), [0.5, 1, 1, 1]),
    ],
)
def test_learning_rate_schedule_gives_the_rates_by_hand(config: OptimConfig, expected: list[float]) -> None:
    assert [learning_rate(config, step, 4) for step in range(4)] == pytest.approx(expected)


WARM = [(2, 8), (3, 10), (5, 10), (9, 10), (500, 1000)]


@pytest.mark.parametrize(("warmup", "total"), WARM)
@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_learning_rate_after_warm_up_is_that_of_pytorchs_schedulers_in_sequence(
    schedule: Literal["poly", "cosine"], warmup: int, total: int
) -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    rise = lr_scheduler.LinearLR(optimiser, start_factor=1 / warmup, total_iters=warmup - 1)
    fall: lr_scheduler.LRScheduler = (
        lr_scheduler.PolynomialLR(optimiser, total_iters=total - warmup, power=0.9)
        if schedule == "poly"
        else lr_scheduler.CosineAnnealingLR(optimiser, T_max=total - warmup)
    )
    both = lr_scheduler.SequentialLR(optimiser, [rise, fall], milestones=[warmup])
    config = OptimConfig(lr=0.01, schedule=schedule, warmup_steps=warmup)
    for step in range(total):
        assert learning_rate(config, step, total) == pytest.approx(both.get_last_lr()[0], rel=1e-9), step
        optimiser.step()
        both.step()


@pytest.mark.parametrize("schedule", ["poly", "cosine", "step", "constant"])
@pytest.mark.parametrize("milestones", [(0.75,), (0.1, 0.3, 0.8)])
@pytest.mark.parametrize("warmup", [1, 2, 7, 40, 50, 99])
def test_learning_rate_rises_until_the_warm_up_ends_and_goes_on_from_there(
    schedule: Literal["poly", "cosine", "step", "constant"], milestones: tuple[float, ...], warmup: int
) -> None:
    config = OptimConfig(lr=0.01, schedule=schedule, warmup_steps=warmup, milestones=milestones)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert all(before < after for before, after in pairwise(rates[:warmup]))
    assert rates[warmup] == rates[warmup - 1] and rates[0] == pytest.approx(rates[warmup] / warmup)
    assert schedule == "step" or rates[warmup] == 0.01
    assert all(before >= after > 0 for before, after in pairwise(rates[warmup:]))


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
@pytest.mark.parametrize("total", [1, 3, 4])
def test_learning_rate_of_a_stage_that_is_all_warm_up_only_rises(
    schedule: Literal["poly", "cosine", "constant"], total: int
) -> None:
    config = OptimConfig(lr=1, schedule=schedule, warmup_steps=4)
    assert [learning_rate(config, step, total) for step in range(total)] == [0.25, 0.5, 0.75, 1.0][:total]


def test_learning_rate_reference_milestones_fall_on_the_published_steps() -> None:
    config = OptimConfig(milestones=(24 / 42, 36 / 42, 40 / 42))
    changes = [s for s in range(1, 42_000) if learning_rate(config, s, 42_000) != learning_rate(config, s - 1, 42_000)]
    assert changes == [24_000, 36_000, 40_000]


def test_clip_limits_the_norm_only_where_asked() -> None:
    net = nn.Linear(2, 1, bias=False)
    for limit, norm in ((0.0, 5.0), (1.0, 1.0), (9.0, 5.0)):
        net.weight.grad = torch.tensor([[3.0, 4.0]])
        clip(net, OptimConfig(clip_norm=limit))
        assert float(net.weight.grad.norm()) == pytest.approx(norm, rel=1e-5)
