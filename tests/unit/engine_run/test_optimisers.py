"""AdamW beside SGD: its update by hand, its defaults, and runs that are stopped, gone on with and forked."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from engine import checkpoint
from engine.config import Recipe
from engine.config.checks import LAYERS
from engine.config.determining import stage_names, work_name
from engine.config.forking import make_plan, take
from engine.config.schema import ModelConfig, OptimConfig, ProxyConfig
from engine.errors import CheckpointError, RecipeError
from engine.layout import laid_out_as
from engine.models import build_backbone, build_head
from engine.optim import AdamW, Sgd, build_optimiser, set_learning_rate
from engine.proxies import build_proxy
from engine.stages.match import Embedder
from tests.unit.engine_run.conftest import ROOT, Runner, tiny_recipe
from tests.unit.engine_run.test_optim import Net, assert_updates_alike
from tests.unit.engine_run.test_resume import assert_equal_runs, at
from tests.unit.engine_run.test_stage_cache import inputs_of

ADAMW: dict[str, Any] = {"optimiser": "adamw", "lr": 0.01}


def everywhere(**optim: Any) -> dict[str, Any]:
    """Changes to the tiny recipe: these keys in every stage."""
    return {f"{stage}__optim": {**ADAMW, **optim} for stage in ("proxy", "match", "segment")}


# ---- the update ------------------------------------------------------------------------------------------------------


class NaiveAdamW:
    """Loshchilov and Hutter 2019, algorithm 2, number by number in float64; not the code under test."""

    def __init__(self, value: np.ndarray, beta1: float, beta2: float, eps: float, decay: float) -> None:
        self.value, self.first, self.second, self.steps = value.astype(np.float64), 0.0 * value, 0.0 * value, 0
        self.beta1, self.beta2, self.eps, self.decay = beta1, beta2, eps, decay

    def update(self, gradient: np.ndarray, rate: float) -> None:
        self.steps += 1
        for place in np.ndindex(self.value.shape):
            g = float(gradient[place])
            self.first[place] = self.beta1 * self.first[place] + (1 - self.beta1) * g
            self.second[place] = self.beta2 * self.second[place] + (1 - self.beta2) * g * g
            mean = self.first[place] / (1 - self.beta1**self.steps)
            square = self.second[place] / (1 - self.beta2**self.steps)
            moved = mean / (square**0.5 + self.eps) + self.decay * self.value[place]
            self.value[place] -= rate * moved


def test_adamw_update_equals_the_formula_number_by_number() -> None:
    net = Net().double()
    config = OptimConfig(optimiser="adamw", lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)
    optimiser = build_optimiser(net, config)
    assert isinstance(optimiser, AdamW)
    naive = {
        name: NaiveAdamW(value.detach().numpy().copy(), 0.8, 0.95, 1e-6, 0.3 if name == "conv.weight" else 0.0)
        for name, value in net.named_parameters()
    }
    made = np.random.default_rng(0)
    for step in range(7):
        rate = 0.1 / (1 + step)
        set_learning_rate(optimiser, rate)
        for name, parameter in net.named_parameters():
            gradient = made.normal(size=tuple(parameter.shape)) * 10.0 ** made.integers(-4, 3)
            parameter.grad = torch.from_numpy(gradient)
            naive[name].update(gradient, rate)
        optimiser.update()
        for name, parameter in net.named_parameters():
            np.testing.assert_allclose(parameter.detach().numpy(), naive[name].value, rtol=1e-12, atol=1e-12)


def test_adamw_updates_and_keeps_what_that_of_pytorch_does_to_the_bit() -> None:
    torch.manual_seed(0)
    nets = [Net(), Net()]
    nets[1].load_state_dict(nets[0].state_dict())
    ours = build_optimiser(nets[0], OptimConfig(optimiser="adamw"))
    named = dict(nets[1].named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [named["conv.weight"]]},
        {"params": [named["conv.bias"]], "weight_decay": 0.0},
        {"params": [named["bn.weight"], named["bn.bias"]], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups)  # every setting its own default
    assert_updates_alike(nets, ours, theirs)


def test_adamw_lets_weights_alone_decay_and_biases_learn_at_the_rate() -> None:
    config = OptimConfig(optimiser="adamw", bias_lr_factor=7.0)
    groups = build_optimiser(Net(), config).param_groups
    assert [(group["lr_factor"], group["weight_decay"]) for group in groups] == [(1, 0.01), (1, 0), (1, 0)]
    again = build_optimiser(Net(), OptimConfig(bias_lr_factor=7.0)).param_groups
    assert [(group["lr_factor"], group["weight_decay"]) for group in again] == [(1, 5e-4), (7, 0), (1, 0)]


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_norms_of_any_kind_do_not_decay(optimiser: Any) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.BatchNorm1d(2), nn.GroupNorm(1, 2))
    groups = build_optimiser(net, OptimConfig(optimiser=optimiser)).param_groups
    decaying = [parameter for group in groups if group["weight_decay"] for parameter in group["params"]]
    assert [id(parameter) for parameter in decaying] == [id(net[0].weight)]


def test_adamw_finds_the_least_of_a_bowl() -> None:
    net = nn.Linear(4, 1, bias=False)
    optimiser = build_optimiser(net, OptimConfig(optimiser="adamw", weight_decay=0.0))
    for _ in range(400):
        set_learning_rate(optimiser, 0.05)
        net.weight.grad = 2 * (net.weight.detach() - torch.tensor([[1.0, -2.0, 3.0, 0.5]]))
        optimiser.update()
    torch.testing.assert_close(net.weight.detach(), torch.tensor([[1.0, -2.0, 3.0, 0.5]]), atol=1e-2, rtol=0)


def test_nothing_is_fused_on_a_cpu() -> None:
    for name in ("sgd", "adamw"):
        optimiser = build_optimiser(Net(), OptimConfig(optimiser=name))  # type: ignore[arg-type]
        assert not optimiser.defaults["fused"] and not optimiser.defaults["foreach"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_fused_updates_on_a_gpu_are_those_of_the_cpu_but_for_rounding(name: Any, tmp_path: Path) -> None:
    """And go on from what a CPU has kept, and the other way round."""
    torch.manual_seed(0)
    nets = {"cpu": Net(), "cuda": Net().cuda()}
    nets["cuda"].load_state_dict(nets["cpu"].state_dict())
    config = OptimConfig(optimiser=name, lr=0.01)
    made = {device: build_optimiser(net, config) for device, net in nets.items()}
    assert made["cuda"].defaults["fused"] and not made["cpu"].defaults["fused"]
    for step in range(8):
        if step == 4:
            for device, net in nets.items():
                checkpoint.save_step(tmp_path / device, "match", 4, net, made[device], {})
            for device, other in (("cpu", "cuda"), ("cuda", "cpu")):
                (found,) = checkpoint.step_checkpoints(tmp_path / other, "match")
                checkpoint.load_step(found, nets[device], made[device])
        for parameters in zip(*(net.parameters() for net in nets.values()), strict=True):
            value = torch.randn(parameters[0].shape)
            for parameter in parameters:
                parameter.grad = value.to(parameter.device)
        for optimiser in made.values():
            optimiser.update()
    for one, other in zip(nets["cpu"].parameters(), nets["cuda"].parameters(), strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-5, atol=1e-6)


def test_fused_sgd_takes_parameters_whose_first_gradient_comes_later() -> None:
    """PyTorch's own kernel refuses velocities of which some are not there yet."""
    torch.manual_seed(0)
    made = []
    for fused in (True, None):
        values = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
        optimiser = Sgd(values, lr=0.1, momentum=0.9, fused=fused)
        for step in range(4):
            for number, value in enumerate(values):
                value.grad = torch.full((3,), 1.0 + step) if step >= number else None
            optimiser.update()
        made.append(values)
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other)


def backward_of(backbone: str, input_name: str) -> tuple[nn.Module, nn.Module]:
    """A network twice, in the memory order that GPUs are given, each with the gradients that a pass leaves."""
    config = ModelConfig.model_validate({"backbone": backbone, "width": 0.125, "head": "aspp", "head_channels": 8})
    config = config.model_copy(update={"input": input_name})
    net = build_head(build_backbone(config, torch.Generator().manual_seed(0)), 3, config)
    twins = [copy.deepcopy(net).to(memory_format=torch.channels_last) for _ in range(2)]  # type: ignore[call-overload]
    for twin in twins:
        x = torch.randn(2, 1 if input_name == "gray" else 3, 64, 64, generator=torch.Generator().manual_seed(1))
        (twin(x.contiguous(memory_format=torch.channels_last)) * torch.randn(64, 64)).sum().backward()
        for number, value in enumerate(twin.parameters()):
            value.grad = torch.randn(value.shape, generator=torch.Generator().manual_seed(number))
            if value.dim() == 4 and number % 2:  # as autograd lays it out, and otherwise
                value.grad = value.grad.to(memory_format=torch.channels_last)
    return twins[0], twins[1]


def test_laid_out_as_copies_only_what_lies_otherwise() -> None:
    values = torch.arange(8 * 4 * 3 * 3).float().view(8, 4, 3, 3)
    moved = laid_out_as(values.to(memory_format=torch.channels_last), values)
    assert torch.equal(moved, values) and moved.stride() == (36, 1, 12, 4)
    assert laid_out_as(values, values) is values
    thin = torch.arange(32).float().view(8, 4, 1, 1)
    other = laid_out_as(thin.to(memory_format=torch.channels_last), thin)
    assert other.stride() == (4, 1, 4, 4) and other.data_ptr() == thin.data_ptr() and torch.equal(other, thin)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize(("backbone", "input_name"), [("tiny_vgg", "gray"), ("resnet18", "rgb"), ("alexnet", "gray")])
def test_fused_kernels_find_everything_in_one_memory_order(
    tmp_path: Path, backbone: str, input_name: str, name: Any
) -> None:
    """What their check on a GPU asks for; those of the CPU do not check, and compute nonsense else. Also of a state
    that was kept in another order, as a CPU keeps it for a GPU."""
    nets = backward_of(backbone, input_name)
    made = [build_optimiser(net, OptimConfig(optimiser=name, lr=0.01)) for net in nets]
    for group in (made[1].defaults, *made[1].param_groups):
        group["fused"] = True
    for step in range(3):
        gradients = [value.grad for value in nets[1].parameters()]
        for optimiser in made:
            optimiser.update()
        for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
            for value in (other.grad, *made[1].state[other].values()):
                assert value.dim() == 0 or value.stride() == other.stride()
        for value, gradient in zip(nets[1].parameters(), gradients, strict=True):
            value.grad = gradient
        if step == 1:
            plain = copy.deepcopy(nets[0]).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            kept = build_optimiser(plain, OptimConfig(optimiser=name, lr=0.01))
            kept.load_state_dict(copy.deepcopy(made[0].state_dict()))
            for state in kept.state.values():
                for key, item in state.items():
                    state[key] = item.contiguous().clone(memory_format=torch.contiguous_format) if item.dim() else item
            checkpoint.save_step(tmp_path, "match", 2, plain, kept, {})
            (found,) = checkpoint.step_checkpoints(tmp_path, "match")
            for net, optimiser in zip(nets, made, strict=True):
                checkpoint.load_step(found, net, optimiser)
    assert made[1].defaults["fused"] and not made[0].defaults["fused"]


def test_load_step_keeps_where_and_how_the_optimiser_counts(tmp_path: Path) -> None:
    """A fused one counts its steps beside its parameters: what one that is not has kept must not change that."""
    net = Net()
    plain = AdamW([{"params": net.parameters(), "lr_factor": 1.0}], fused=None)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    plain.update()
    checkpoint.save_step(tmp_path, "match", 1, net, plain, {})
    (found,) = checkpoint.step_checkpoints(tmp_path, "match")
    fused = AdamW([{"params": net.parameters(), "lr_factor": 3.0}], lr=0.5, betas=(0.5, 0.6), fused=True)
    taken: list[Any] = []
    fused.register_load_state_dict_pre_hook(lambda _, state: taken.append(copy.deepcopy(state["param_groups"])))
    checkpoint.load_step(found, net, fused)
    ((group,),) = taken
    assert (group["fused"], group["lr"], group["betas"], group["lr_factor"]) == (True, 0.5, (0.5, 0.6), 3.0)
    assert all(state["step"] == 1 for state in fused.state.values())


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_no_optimiser_loads_the_compiler(optimiser: str) -> None:
    program = f"""
import sys, torch
from torch import nn
from engine.config.schema import OptimConfig
from engine.optim import build_optimiser
net = nn.Linear(2, 2)
optimiser = build_optimiser(net, OptimConfig(optimiser={optimiser!r}))
net(torch.ones(1, 2)).sum().backward()
optimiser.update()
optimiser.load_state_dict(optimiser.state_dict())
optimiser.update()
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- layer-wise rates ------------------------------------------------------------------------------------------------

VGG16 = [f"stages.{stage}.{block}." for stage, blocks in enumerate((2, 2, 3, 3, 3)) for block in range(blocks)]
RESNET18 = [f"layer{layer}.{block}." for layer in (1, 2, 3, 4) for block in (0, 1)]
RESNET50 = [f"layer{layer}.{block}." for layer, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)) for block in range(blocks)]
LAYERS_BY_HAND: dict[str, list[tuple[str, ...]]] = {
    "tiny_vgg": [(f"stages.{place}.",) for place in ("0.0", "1.0", "2.0", "2.1", "3.0", "3.1", "4.0")],
    "vgg16": [(name,) for name in VGG16],
    "alexnet": [(f"convs.{number}.",) for number in range(5)],
    "alexnet_jigsaw": [(f"convs.{number}.",) for number in range(5)],
    "alexnet_torchvision": [(f"convs.{number}.",) for number in range(5)],
    "resnet18": [("conv1.", "bn1."), *((name,) for name in RESNET18)],
    "resnet50": [("conv1.", "bn1."), *((name,) for name in RESNET50)],
}
"""Beginnings of parameters' names, from the input up."""


def rates(module: nn.Module, **optim: Any) -> dict[str, tuple[float, float]]:
    """Factor of the rate and weight decay of each parameter."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        names[id(parameter)]: (group["lr_factor"], group["weight_decay"])
        for group in build_optimiser(module, OptimConfig(**optim)).param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("backbone", LAYERS_BY_HAND)
@pytest.mark.parametrize("head", [True, False])
def test_layer_decay_gives_every_layer_of_every_backbone_the_factor_by_hand(backbone: Any, head: bool) -> None:
    config = ModelConfig(backbone=backbone, width=0.125, head="fcn", head_channels=8)
    layers = LAYERS_BY_HAND[backbone]
    assert len(layers) == LAYERS[backbone]
    network = build_backbone(config)
    module = build_head(network, 3, config) if head else Embedder(network)
    found = rates(module, layer_decay=0.5, bias_lr_factor=4.0, weight_decay=0.1)
    assert found.keys() == dict(module.named_parameters()).keys()
    plain = rates(module, bias_lr_factor=4.0, weight_decay=0.1)
    for name, (factor, decay) in found.items():
        place = [
            number
            for number, beginnings in enumerate(layers)
            if name.startswith(tuple(f"backbone.{one}" for one in beginnings))
        ]
        assert len(place) == name.startswith("backbone."), name
        above = len(layers) - 1 - place[0] + head if place else 0
        assert factor == pytest.approx(plain[name][0] * 0.5**above, rel=1e-12), name
        assert decay == plain[name][1], name
    tops = [factor for name, (factor, _) in found.items() if name.endswith("weight")]
    assert max(tops) == 1, "what is on top learns at the rate itself"


def test_layer_decay_of_contrast_leaves_the_key_network_alone() -> None:
    network = build_backbone(ModelConfig(backbone="tiny_vgg", width=0.25))
    task = build_proxy(ProxyConfig(kind="densecl", queue=4, projection=4, head_channels=8), network)
    found = rates(task, layer_decay=0.5)
    assert all(name.startswith("query.") for name in found)
    assert found["query.whole.output.weight"][0] == 1 == found["query.cells.hidden.weight"][0]
    assert found["query.backbone.stages.4.0.conv.weight"][0] == 0.5
    assert found["query.backbone.stages.0.0.conv.weight"][0] == 0.5**7


def test_layer_decay_of_one_makes_the_groups_of_before() -> None:
    config = ModelConfig(backbone="tiny_vgg", width=0.25, head="fcn", head_channels=8)
    groups = build_optimiser(build_head(build_backbone(config), 3, config), OptimConfig()).param_groups
    assert [(group["lr_factor"], group["weight_decay"]) for group in groups] == [(1, 5e-4), (2, 0), (1, 0)]


def test_layer_decay_update_is_the_one_of_a_smaller_rate() -> None:
    torch.manual_seed(0)
    config = ModelConfig(backbone="tiny_vgg", width=0.25, head="fcn", head_channels=8)
    net = build_head(build_backbone(config), 3, config)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    optimiser = build_optimiser(net, OptimConfig(layer_decay=0.5, momentum=0.0, weight_decay=0.0, bias_lr_factor=1.0))
    set_learning_rate(optimiser, 0.25)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.update()
    moved = {name: (before[name] - value.detach()).mean() for name, value in net.named_parameters()}
    assert float(moved["head.output.weight"]) == pytest.approx(0.25, rel=1e-5)
    assert float(moved["backbone.stages.4.0.conv.weight"]) == pytest.approx(0.125, rel=1e-5)
    assert float(moved["backbone.stages.0.0.bn.bias"]) == pytest.approx(0.25 * 0.5**7, rel=1e-4)


# ---- the recipe ------------------------------------------------------------------------------------------------------


def test_what_is_not_written_are_the_defaults_of_pytorch() -> None:
    theirs = torch.optim.AdamW([nn.Parameter(torch.zeros(1))]).defaults
    ours = OptimConfig.model_validate({"optimiser": "adamw"})
    for key in ("lr", "betas", "eps", "weight_decay"):
        assert getattr(ours, key) == theirs[key], key
    assert OptimConfig.model_validate({"optimiser": "adamw", "lr": 0.01}).lr == 0.01
    assert OptimConfig.model_validate({"optimiser": "sgd"}) == OptimConfig()
    recipe = tiny_recipe(segment__optim={"optimiser": "adamw"})
    assert Recipe.model_validate(json.loads(recipe.model_dump_json())) == recipe
    assert recipe.segment is not None and recipe.segment.optim.milestones == (24 / 42, 36 / 42, 40 / 42)


@pytest.mark.parametrize(
    ("optim", "sentence"),
    [
        ({"betas": [0.9, 1.0]}, "segment.optim.betas 0.9, 1: write two decay rates from 0 to below 1"),
        ({"betas": [-0.1, 0.9]}, "segment.optim.betas -0.1, 0.9: write two decay rates"),
        ({"optimiser": "adam"}, "'sgd' or 'adamw'"),
        ({"eps": 0}, "greater than 0"),
        ({"layer_decay": 0}, "greater than 0"),
        ({"layer_decay": 1.1}, "less than or equal to 1"),
    ],
)
def test_values_that_are_none_are_refused(optim: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        tiny_recipe(segment__optim=optim)


def test_names_that_were_kept_before_there_was_a_choice_stay_what_they_were() -> None:
    """Literally: what queues, caches and measured times of older versions hold."""
    plain = tiny_recipe(runtime__device="cpu")
    assert stage_names(plain) == {"proxy": "5c4b6b8dfac3371d", "match": "355e95ca1ce3744d"}
    assert work_name(plain) == "714b309d92fff34a"
    assert not [
        key for key, _ in inputs_of(plain)["recipe"] if key.endswith((".optimiser", ".betas", ".eps", ".layer_decay"))
    ]
    assert stage_names(tiny_recipe(match__optim={"layer_decay": 0.9}))["match"] != stage_names(plain)["match"]
    changed = tiny_recipe(**everywhere(), runtime__device="cpu")
    assert ["match.optim.optimiser", "adamw"] in inputs_of(changed)["recipe"]
    assert work_name(changed) != work_name(plain), "AdamW keeps two numbers for each weight"
    assert work_name(changed) == work_name(tiny_recipe(**everywhere(lr=0.5, betas=[0.8, 0.9]), runtime__device="cpu"))


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("layer_decay", [1.0, 0.8])
def test_adamw_trains_every_stage_and_a_stopped_run_equals_one_that_was_not(
    runner: Runner, another_runner: Runner, layer_decay: float
) -> None:
    recipe = tiny_recipe(**everywhere(layer_decay=layer_decay))
    assert another_runner.train(recipe) == "succeeded"
    for stage, step in (("proxy", 2), ("match", 1), ("segment", 3), ("segment", 4)):
        assert runner.train(recipe, stop=at(stage, step)) == "stopped"
    assert runner.train(recipe) == "succeeded"
    assert_equal_runs(runner, another_runner)
    plain = Runner(runner.run_dir.parent / "plain")
    assert plain.train(tiny_recipe()) == "succeeded"
    assert plain.losses().keys() == runner.losses().keys() and plain.losses() != runner.losses()


@pytest.mark.slow
def test_adamw_killed_in_the_middle_goes_on_to_the_bit(runner: Runner, another_runner: Runner) -> None:
    recipe = tiny_recipe(**everywhere(), proxy=None, match=None, segment__steps=40, runtime__checkpoint_every=5)
    recipe = recipe.model_copy(update={"evaluate": None})
    assert another_runner.finish(recipe)[0] == 0
    assert runner.kill_at(recipe, signal.SIGKILL, "segment", 12) == -signal.SIGKILL
    assert runner.finish(recipe)[0] == 0
    assert_equal_runs(runner, another_runner, ["segment"])
    (finished,) = runner.kind("stage_finished")
    assert finished["values"]["replayed"] == finished["values"]["replayed_equal"] > 0


@pytest.mark.slow
def test_run_whose_optimiser_was_changed_is_not_gone_on_with(runner: Runner) -> None:
    runner.train(tiny_recipe(proxy=None, match=None), stop=at("segment", 3))
    with pytest.raises(CheckpointError, match=r"made with segment\.optim\.optimiser=sgd, the recipe now says adamw"):
        runner.train(tiny_recipe(proxy=None, match=None, segment__optim={"optimiser": "adamw", "lr": 0.05}))


@pytest.mark.slow
def test_fork_with_layer_wise_rates_begins_its_stage_anew(runner: Runner) -> None:
    """Their optimiser has other groups."""
    assert runner.train(tiny_recipe(proxy=None, runtime__keep_every=2), stop=at("segment", 4)) == "stopped"
    plan = make_plan(tiny_recipe(proxy=None, segment__optim={"layer_decay": 0.8}), runner.run_dir, "7")
    assert plan.begun is None and "segment.optim.layer_decay is 0.8 here and 1.0 in run 7" in plan.note


@pytest.mark.slow
def test_fork_with_another_decay_goes_on_where_its_parent_was(runner: Runner, another_runner: Runner) -> None:
    """What a checkpoint holds is the same: an average, a head of its own, one group of parameters for each layer."""
    fcn = {"model": {"backbone": "tiny_vgg", "width": 4, "head": "fcn"}}
    then = {"segment__ema": 0.5, "segment__auxiliary_head": 0.4, "segment__optim": {"lr": 0.05, "layer_decay": 0.8}}
    now = {"segment__ema": 0.9, "segment__auxiliary_head": 0.2, "segment__optim": {"lr": 0.05, "layer_decay": 0.7}}
    parent = tiny_recipe(proxy=None, match=None, runtime__keep_every=2, **fcn, **then)
    assert runner.train(parent, stop=at("segment", 4)) == "stopped"
    child = tiny_recipe(proxy=None, match=None, **fcn, **now)
    plan = take(child, (runner.run_dir, "7", None), another_runner.run_dir)
    assert plan.begun is not None and plan.begun.step == 4 and not plan.note
    assert another_runner.train(child) == "succeeded"
    assert min(step for stage, step in another_runner.losses() if stage == "segment") > 4
    for key in ("segment__ema", "segment__auxiliary_head"):
        without = tiny_recipe(proxy=None, match=None, **fcn, **now | {key: 0.0})
        with pytest.raises(RecipeError, match="cannot change inside stage segment"):
            make_plan(without, runner.run_dir, "7")


@pytest.mark.slow
def test_fork_with_another_optimiser_begins_its_stage_anew(runner: Runner, another_runner: Runner) -> None:
    parent = tiny_recipe(proxy=None, runtime__keep_every=2)
    assert runner.train(parent, stop=at("segment", 4)) == "stopped"
    changed = tiny_recipe(proxy=None, segment__optim={"optimiser": "adamw", "lr": 0.05})
    plan = make_plan(changed, runner.run_dir, "7")
    assert plan.words() == "match is taken over, segment is trained anew, 6 steps, evaluate is done anew"
    assert plan.note == (
        "segment.optim.optimiser is adamw here and sgd in run 7, and cannot change inside stage segment"
    )
    alone = tiny_recipe(proxy=None, match=None, runtime__keep_every=2)
    assert another_runner.train(alone, stop=at("segment", 4)) == "stopped"
    with pytest.raises(RecipeError, match=r"cannot change inside stage segment: nothing that it has trained fits"):
        make_plan(
            tiny_recipe(proxy=None, match=None, segment__optim={"optimiser": "adamw"}), another_runner.run_dir, "8"
        )
