"""What of a backbone is not trained (model.freeze), and what learns slower (optim.backbone_lr_factor)."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from engine.config.checks import LAYERS
from engine.config.determining import stage_names, work_name
from engine.config.forking import make_plan, take
from engine.config.optim import HeadedOptimConfig
from engine.config.schema import ModelConfig
from engine.data.values import VOID
from engine.errors import RecipeError
from engine.events import SilentWriter
from engine.models import build_backbone, build_head
from engine.optim import build_optimiser
from engine.stages import Context
from engine.stages.memory import normalises_batches
from engine.stages.segment import SegmentStage
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.processes import Ranks
from tests.unit.engine_run.test_distributed import SHARED, losses
from tests.unit.engine_run.test_resume import assert_equal_runs, at
from tests.unit.engine_run.test_sharing import FROZEN

BACKBONES = ["tiny_vgg", "resnet18", "alexnet", "timm/test_convnext", "timm/test_efficientnet", "timm/test_vit"]
HEAD: dict[str, Any] = {"model__head": "fcn", "proxy": None}


def built(name: str, **keys: Any) -> Any:
    width = {} if name.startswith("timm/") else {"width": 0.125}
    return build_backbone(
        ModelConfig.model_validate({"backbone": name, **width, **keys}), torch.Generator().manual_seed(0)
    )


def on(backbone: str, freeze: Any, **changes: Any) -> dict[str, Any]:
    """Changes to the tiny recipe."""
    width = 1.0 if backbone.startswith("timm/") else 0.25
    return {**HEAD, "model__backbone": backbone, "model__width": width, "model__freeze": freeze, **changes}


def weights(runner: Runner, stage: str) -> dict[str, Tensor]:
    """What a stage hands on: the backbone's by its own names, other parts' as they are stored."""
    found: dict[str, Tensor] = load_file(runner.run_dir / "checkpoints" / stage / "final" / "model.safetensors")
    return {key.removeprefix("backbone."): value for key, value in found.items()}


def stage_of(tmp_path: Path, **changes: Any) -> SegmentStage:
    recipe = tiny_recipe(match=None, **changes)
    context = Context(recipe, tmp_path, torch.device("cpu"), SilentWriter(), lambda: False)
    assert recipe.segment is not None
    return SegmentStage(context, recipe.segment)


# ---- the backbone ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_frozen_backbone_makes_no_graph_and_keeps_its_statistics(name: str) -> None:
    backbone = built(name)
    before = copy.deepcopy(backbone.state_dict())
    backbone.freeze(None)
    layers, last = backbone.train().features(torch.randn(2, 3, 64, 64))
    assert last.grad_fn is None and all(maps.grad_fn is None for maps, _ in layers)
    assert not normalises_batches(backbone) and not any(part.training for part in backbone.modules())
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("count", [1, 3])
def test_frozen_layers_are_the_first_ones_and_nothing_else(name: str, count: int) -> None:
    backbone = built(name)
    keys = [key for layer in backbone.layer_keys()[:count] for key in layer]
    backbone.freeze(count)
    before = copy.deepcopy(backbone.train().state_dict())
    _, last = backbone.features(torch.randn(2, 3, 64, 64))
    last.square().mean().backward()
    for key, parameter in backbone.named_parameters():
        assert (parameter.grad is None, parameter.requires_grad) == (key in keys, key not in keys), key
    moved = {key for key, value in backbone.state_dict().items() if not torch.equal(before[key], value)}
    assert not moved & set(keys)
    assert backbone.training and set(backbone.state_dict()) - set(keys)


def test_layers_below_a_frozen_one_make_no_graph() -> None:
    backbone = built("tiny_vgg")
    backbone.freeze(3)
    layers, _ = backbone.train().features(torch.randn(2, 3, 32, 32))
    assert [maps.grad_fn is None for maps, _ in layers] == [True] * 4 + [False] * 4


def test_copy_of_a_frozen_backbone_is_frozen_by_itself() -> None:
    backbone = built("resnet18")
    backbone.freeze(2)
    twin = copy.deepcopy(backbone).train()
    assert not twin.bn1.training and twin.bn1 is not backbone.bn1 and twin.frozen[0] is not backbone.frozen[0]


@pytest.mark.parametrize("name", ["vgg16", "resnet18"])
def test_as_many_layers_as_there_are_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} has {LAYERS[name]} layers, write 1 to {LAYERS[name] - 1}, or"):
        tiny_recipe(**on(name, LAYERS[name]))
    tiny_recipe(**on(name, LAYERS[name] - 1))


@pytest.mark.parametrize("key", ["model__freeze", "segment__reset_layers"])
def test_layers_of_timm_are_counted_before_anything_trains(key: str, runner: Runner) -> None:
    with pytest.raises(RecipeError, match=r"99: timm/test_vit has 7 layers, write"):
        runner.train(tiny_recipe(**{**on("timm/test_vit", "none"), key: 99}))
    assert runner.kind("stage_started") == []


def test_head_that_cannot_read_the_encoder_is_refused_before_anything_trains(runner: Runner) -> None:
    changes = on("timm/vit_small_patch14_dinov2", "none", model__head="hypercolumn")
    with pytest.raises(RecipeError, match="hypercolumn needs scales that are powers of two"):
        runner.train(tiny_recipe(**changes))
    assert runner.kind("stage_started") == []


def test_layers_that_timm_does_not_name_are_refused_before_anything_trains(runner: Runner) -> None:
    with pytest.raises(RecipeError, match="timm does not say what the layers of timm/caformer_s18 are"):
        runner.train(tiny_recipe(**on("timm/caformer_s18", "none", segment__optim={"layer_decay": 0.9})))


@pytest.mark.parametrize("value", [0, -1, True, "all", None, 1.5])
def test_what_is_no_part_of_a_backbone_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"is not allowed; write none \| backbone \| number of layers, from 1"):
        tiny_recipe(**on("tiny_vgg", value))


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "timm/test_convnext", "timm/test_vit"])
def test_frozen_backbone_is_tuned_by_match_and_handed_on_as_it_was_by_segment(name: str, runner: Runner) -> None:
    recipe = tiny_recipe(**on(name, "backbone"))
    assert runner.train(recipe) == "succeeded"
    matched, segmented = weights(runner, "match"), weights(runner, "segment")
    start = built(name, width=1.0 if name.startswith("timm/") else 0.25).state_dict()
    assert not all(torch.equal(matched[key], start[key]) for key in start)
    for key, value in matched.items():
        assert torch.equal(segmented[key], value), key
    assert any(segmented[key].any() for key in segmented if key.endswith("output.weight"))


def test_first_layers_are_frozen_in_every_stage(runner: Runner) -> None:
    recipe = tiny_recipe(model__freeze=2)
    assert runner.train(recipe) == "succeeded"
    first = {key: value for key, value in weights(runner, "proxy").items() if "stages.0" in key or "stages.1" in key}
    assert len(first) == 12
    last = "stages.4.0.conv.weight"
    for stage in ("match", "segment"):
        later = weights(runner, stage)
        assert all(torch.equal(later[key], value) for key, value in first.items())
        assert not torch.equal(later[last], weights(runner, "proxy")[last])


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("freeze", ["backbone", 4])
def test_optimiser_holds_no_state_of_what_is_frozen(optimiser: str, freeze: Any, tmp_path: Path) -> None:
    stage = stage_of(tmp_path, **on("tiny_vgg", freeze, segment__optim={"optimiser": optimiser}, segment__ema=0.9))
    frozen = {parameter for parameter in stage.model.backbone.parameters() if not parameter.requires_grad}
    assert len(frozen) == {"backbone": 21, 4: 12}[freeze]
    before = [parameter.clone() for parameter in frozen]
    stage.step(0)
    stage.step(1)
    held = set(stage.optimiser.state) | {p for group in stage.optimiser.param_groups for p in group["params"]}
    assert held == set(stage.model.parameters()) - frozen
    assert all(torch.equal(one, two) for one, two in zip(before, frozen, strict=True))
    assert all(parameter.grad is None for parameter in frozen)


def test_frozen_step_is_the_one_of_the_head_alone(tmp_path: Path) -> None:
    """Against gradients of the head on maps that were computed beforehand."""
    stage = stage_of(tmp_path, **on("timm/test_vit", "backbone", model__head="linear"))
    head = copy.deepcopy(stage.model.head)
    batch = stage._prepared(0)
    assert batch.where == ()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        maps = stage.model.backbone((batch.images.float() / 255 - mean) / std)
    scores = torch.nn.functional.interpolate(head(maps), size=(32, 32), mode="bilinear")  # type: ignore[operator]
    torch.nn.functional.cross_entropy(scores, batch.target.unflatten(1, (32, 32)), ignore_index=VOID).backward()
    stage._loss_and_gradients(0)
    for ours, theirs in zip(stage.model.head.parameters(), head.parameters(), strict=True):  # type: ignore[union-attr]
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["tiny_vgg", "timm/test_vit"])
@pytest.mark.parametrize("freeze", ["backbone", 2])
def test_stopped_run_goes_on_to_the_bit(name: str, freeze: Any, runner: Runner, another_runner: Runner) -> None:
    recipe = tiny_recipe(**on(name, freeze, segment__optim={"optimiser": "adamw", "backbone_lr_factor": 0.5}))
    assert another_runner.train(recipe) == "succeeded"
    for stage, step in (("match", 2), ("segment", 2), ("segment", 4)):
        assert runner.train(recipe, stop=at(stage, step)) == "stopped"
    assert runner.train(recipe) == "succeeded"
    assert_equal_runs(runner, another_runner, ("match", "segment"))


@pytest.mark.slow
def test_killed_run_goes_on_to_the_bit(runner: Runner, another_runner: Runner) -> None:
    more = {"segment__steps": 30, "runtime__checkpoint_every": 5, "match": None}
    recipe = tiny_recipe(**on("timm/test_vit", "backbone", model__head="linear", **more))
    assert another_runner.train(recipe) == "succeeded"
    runner.kill_at(recipe, signal.SIGKILL, "segment", 12)
    assert runner.finish(recipe)[0] == 0
    assert_equal_runs(runner, another_runner, ("segment",))


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["none", "backbone", 2])
@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_convnext"])
def test_two_processes_train_as_one(name: str, freeze: Any, tmp_path: Path) -> None:
    recipe = tiny_recipe(**{**SHARED, **on(name, freeze, model__head="linear")})
    for processes in (1, 2):
        code, told = Ranks(recipe, tmp_path / str(processes), processes, FROZEN).finish()
        assert code == 0, told
    for stage in ("match", "segment"):
        one, two = (losses(tmp_path / str(processes), stage) for processes in (1, 2))
        assert len(one) == len(two) > 3 and two == pytest.approx(one, rel=1e-3), stage


# ---- rates -----------------------------------------------------------------------------------------------------------


def test_backbone_moves_by_the_factor_of_what_it_would(tmp_path: Path) -> None:
    moved = []
    for factor in (1.0, 0.125):
        optim = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "backbone_lr_factor": factor}
        stage = stage_of(tmp_path, **on("timm/test_convnext", "none", segment__optim=optim))
        torch.nn.init.normal_(stage.model.head.output.weight, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr,arg-type]
        before = {name: value.detach().double() for name, value in stage.model.named_parameters()}
        before = copy.deepcopy(before)
        torch.manual_seed(0)
        stage.step(0)
        moved.append({name: value.detach().double() - before[name] for name, value in stage.model.named_parameters()})
    for name, step in moved[0].items():
        share = 0.125 if name.startswith("backbone.") else 1.0
        torch.testing.assert_close(moved[1][name], share * step, rtol=1e-3, atol=1e-7)
    assert any(step.any() for name, step in moved[0].items() if name.startswith("backbone."))


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_factor_goes_with_the_decay_of_layers_and_biases(optimiser: str) -> None:
    config = ModelConfig(backbone="tiny_vgg", width=0.125, head="fcn", head_channels=8)
    net = build_head(build_backbone(config), 3, config)
    keys = HeadedOptimConfig.model_validate({"optimiser": optimiser, "layer_decay": 0.5, "backbone_lr_factor": 0.1})
    rates = {p: group["lr_factor"] for group in build_optimiser(net, keys).param_groups for p in group["params"]}
    own = dict(net.named_parameters())
    assert rates[own["backbone.stages.4.0.conv.weight"]] == pytest.approx(0.05)
    assert rates[own["backbone.stages.0.0.conv.weight"]] == pytest.approx(0.1 * 0.5**7)
    assert rates[own["head.output.weight"]] == 1
    assert rates[own["head.output.bias"]] == (2 if optimiser == "sgd" else 1)
    assert rates.keys() == set(net.parameters())


def test_factor_is_not_for_match_which_has_no_head() -> None:
    with pytest.raises(ValidationError, match=r"match\.optim\.backbone_lr_factor\s+Extra inputs"):
        tiny_recipe(match__optim={"backbone_lr_factor": 0.1})


def test_fork_with_another_factor_begins_its_stage_anew(runner: Runner) -> None:
    assert runner.train(tiny_recipe(proxy=None, runtime__keep_every=2), stop=at("segment", 4)) == "stopped"
    plan = make_plan(tiny_recipe(proxy=None, segment__optim={"backbone_lr_factor": 0.1}), runner.run_dir, "7")
    assert plan.begun is None and "segment.optim.backbone_lr_factor is 0.1 here and 1.0 in run 7" in plan.note


def test_fork_that_freezes_the_backbone_takes_over_what_was_matched_and_trains_the_head_anew(
    runner: Runner, another_runner: Runner
) -> None:
    """The same as a run that froze it from the start."""
    changes = {"runtime__keep_every": 2, "runtime__reuse_stages": False}
    assert runner.train(tiny_recipe(**on("tiny_vgg", "none", **changes)), stop=at("segment", 4)) == "stopped"
    frozen = tiny_recipe(**on("tiny_vgg", "backbone", **changes))
    plan = make_plan(frozen, runner.run_dir, "7")
    assert plan.words() == "match is taken over, segment is trained anew, 6 steps, evaluate is done anew"
    assert "model.freeze is backbone here and none in run 7, and cannot change inside stage segment" in plan.note
    child = Runner(runner.run_dir.parent / "child")
    child.run_dir.mkdir()
    take(frozen, (runner.run_dir, "7", None), child.run_dir, None)
    assert child.train(frozen) == "succeeded"
    assert another_runner.train(frozen) == "succeeded"
    assert child.weights("segment") == another_runner.weights("segment")


def test_fork_that_freezes_first_layers_that_were_matched_is_refused(runner: Runner) -> None:
    assert runner.train(tiny_recipe(proxy=None), stop=at("segment", 4)) == "stopped"
    with pytest.raises(
        RecipeError, match=r"model\.freeze is 2 here and none in run 7, which had finished match by then"
    ):
        make_plan(tiny_recipe(proxy=None, model__freeze=2), runner.run_dir, "7")


def test_stages_that_freeze_nothing_are_shared_with_runs_that_do_not() -> None:
    plain, frozen, first = (tiny_recipe(**on("tiny_vgg", freeze)) for freeze in ("none", "backbone", 2))
    assert stage_names(plain) == stage_names(frozen) != stage_names(first)
    assert len({work_name(recipe) for recipe in (plain, frozen, first)}) == 3
