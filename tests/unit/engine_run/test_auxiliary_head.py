"""The second head of fine-tuning: what it reads, that its loss counts, and that it is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from engine.config.checks import ONE_CELL_EARLIER, SMALLEST_SIDE
from engine.config.determining import stage_names, work_name
from engine.config.forking import make_plan
from engine.config.schema import ModelConfig
from engine.data.values import VOID
from engine.events import SilentWriter
from engine.models import BUILDERS, DILATED, build_backbone, build_head
from engine.models.dense_heads import DenseSegmenter, WithAuxiliary
from engine.models.export import export_segmenter
from engine.optim import layers_above
from engine.stages import Context
from engine.stages.pixel_losses import pixel_loss
from engine.stages.segment import SegmentStage
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.processes import Ranks
from tests.unit.engine_run.test_distributed import SHARED, losses, weights
from tests.unit.engine_run.test_resume import assert_equal_runs, at
from tests.unit.engine_run.test_sharing import FROZEN, torchrun

ALONE: dict[str, Any] = {"proxy": None, "match": None, "model__head": "fcn"}
READ = {
    "vgg16": ("stages.3.2", 8),
    "tiny_vgg": ("stages.3.1", 8),
    "resnet18": ("layer3", 16),
    "resnet50": ("layer3", 16),
}
READ |= dict.fromkeys(("alexnet", "alexnet_jigsaw", "alexnet_torchvision"), ("convs.3", 16))
"""The module whose map is read, and its scale."""


def network(backbone: str, head: str = "fcn", **more: Any) -> WithAuxiliary:
    config = ModelConfig.model_validate(
        {"backbone": backbone, "width": 0.125, "head": head, "head_channels": 8, "fc_channels": 8, **more}
    )
    segmenter = build_head(build_backbone(config), 3, config, torch.Generator().manual_seed(0))
    assert isinstance(segmenter, DenseSegmenter)
    return WithAuxiliary(segmenter, config, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backbone", BUILDERS)
def test_auxiliary_head_reads_the_map_of_some_depth_below_the_last(backbone: str) -> None:
    net = network(backbone).eval()
    name, scale = READ[backbone]
    made: list[torch.Tensor] = []
    given: list[torch.Tensor] = []
    net.backbone.get_submodule(name).register_forward_hook(lambda _, __, output: made.append(output))
    net.auxiliary.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    x = torch.randn(2, 3, 96, 96)
    main, second = net(x)
    assert main.shape == second.shape == (2, 3, 96, 96)
    assert torch.equal(main, net.segmenter(x)), "the main head computes what it did"
    assert net.backbone.hyper_scales[net.backbone.earlier_map] == scale
    if "alexnet" in backbone:  # its map is that after normalisation and ReLU
        assert given[0].shape == made[0].shape
    else:
        assert torch.equal(given[0], made[0])
    assert net.auxiliary.block[0].weight.shape[:2] == (max(given[0].shape[1] // 4, 8), given[0].shape[1])


@pytest.mark.parametrize("backbone", DILATED)
def test_auxiliary_head_of_a_dilated_network_reads_layer3(backbone: str) -> None:
    net = network(backbone, "aspp", dilated=True).eval()
    given: list[torch.Tensor] = []
    net.auxiliary.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    layer3: list[torch.Tensor] = []
    net.backbone.get_submodule("layer3").register_forward_hook(lambda _, __, output: layer3.append(output))
    net(torch.randn(1, 3, 64, 64))
    assert torch.equal(given[0], layer3[0]) and given[0].shape[2:] == (8, 8)


def test_sides_whose_earlier_map_is_one_cell_are_those_of_the_table() -> None:
    for name, make in BUILDERS.items():
        net, most = make(3, 0.125, None).eval(), 0
        for side in range(max(SMALLEST_SIDE.get(name, 1), 16), 97):
            with torch.no_grad():
                found = net.features(torch.zeros(1, 3, side, side))[0][net.earlier_map][0]
            most = side if found.shape[2] * found.shape[3] == 1 else most
        assert most <= max(ONE_CELL_EARLIER.get(name, 0), 16), name
        assert name not in ONE_CELL_EARLIER or most == ONE_CELL_EARLIER[name]


def test_one_value_a_channel_of_the_earlier_map_is_refused() -> None:
    keys = {**ALONE, "model__backbone": "alexnet_torchvision", "model__head": "fcn32", "segment__batch_size": 1}
    tiny_recipe(**keys)
    with pytest.raises(ValidationError, match=r"write segment\.batch_size 2 or more, or a segment\.crop above 46"):
        tiny_recipe(**keys, segment__auxiliary_head=0.4)


def test_layer_decay_counts_both_heads_as_one_layer() -> None:
    net = network("tiny_vgg")
    found = {name: layers_above(net).get(value) for name, value in net.named_parameters()}
    assert found["segmenter.backbone.stages.4.0.conv.weight"] == 1
    assert found["segmenter.backbone.stages.0.0.conv.weight"] == 7
    assert found["auxiliary.output.weight"] is found["segmenter.head.output.weight"] is None


def test_loss_is_the_sum_with_the_weight_and_reaches_both_heads(tmp_path: Path) -> None:
    recipe = tiny_recipe(**ALONE, segment__auxiliary_head=0.25, segment__accumulate=1, model__dropout=0.0)
    context = Context(recipe, tmp_path, torch.device("cpu"), SilentWriter(), lambda: False)
    assert recipe.segment is not None
    stage = SegmentStage(context, recipe.segment)
    with torch.no_grad():
        for value in stage.trained.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(3)))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    stage.network.register_forward_hook(lambda _, __, output: seen.append(output))
    batch = stage._prepared(0)
    loss = stage._portion(batch.images, batch.where, batch.target, batch.valid)
    main, second = (float(pixel_loss(scores.flatten(2).transpose(1, 2), batch.target).detach()) for scores in seen[0])
    assert float(loss.detach()) == pytest.approx(main + 0.25 * second, rel=1e-6) and main != second
    loss.backward()
    for name, value in stage.trained.named_parameters():
        assert value.grad is not None and bool(value.grad.any()), name
    assert bool((batch.target == VOID).any())


@pytest.mark.slow
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_run_leaves_the_head_behind_and_goes_on_exactly(
    runner: Runner, another_runner: Runner, tmp_path: Path, ema: float
) -> None:
    recipe = tiny_recipe(**ALONE, segment__auxiliary_head=0.4, segment__ema=ema)
    assert another_runner.train(recipe) == "succeeded"
    for step in (2, 5):
        assert runner.train(recipe, stop=at("segment", step)) == "stopped"
    assert runner.train(recipe) == "succeeded"
    assert_equal_runs(runner, another_runner, ["segment"])
    plain = Runner(tmp_path / "plain")
    assert plain.train(tiny_recipe(**ALONE)) == "succeeded"
    handed, without = (weights(run.run_dir, "segment") for run in (runner, plain))
    assert handed.keys() == without.keys(), "what is handed on is the network alone"
    assert any(not torch.equal(handed[name], without[name]) for name in handed)
    export_segmenter(runner.run_dir, tmp_path / "net.pt2", 32)


@pytest.mark.slow
def test_step_checkpoint_holds_the_head_and_another_weight_begins_the_stage_anew(runner: Runner) -> None:
    recipe = tiny_recipe(**{**ALONE, "match": tiny_recipe().match}, segment__auxiliary_head=0.4)
    recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"keep_every": 2})})
    runner.train(recipe, stop=at("segment", 3))
    (kept,) = (runner.run_dir / "checkpoints" / "segment").glob("step_00000002")
    assert any(name.startswith("auxiliary.") for name in load_file(kept / "model.safetensors"))
    plan = make_plan(tiny_recipe(**{**ALONE, "match": recipe.match}), runner.run_dir, "3")
    assert plan.begun is None and "segment.auxiliary_head is 0.0 here and 0.4 in run 3" in plan.note


@torchrun
@pytest.mark.slow
def test_two_processes_train_both_heads_as_one(tmp_path: Path) -> None:
    keys = {**SHARED, **ALONE, "segment__auxiliary_head": 0.4, "segment__accumulate": 1, "segment__loss": "dice"}
    recipe = tiny_recipe(**keys)
    for processes in (1, 2):
        code, told = Ranks(recipe, tmp_path / str(processes), processes, FROZEN).finish()
        assert code == 0, told
    one, two = (losses(tmp_path / str(processes), "segment") for processes in (1, 2))
    assert len(one) == len(two) == 6 and two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, r"segment\.auxiliary_head 0\.4 is not for model\.head hypercolumn, .*: write 0, or model\.head=fcn"),
        ({"model__head": "fcn", "segment__auxiliary_head": -1}, "greater than or equal to 0"),
    ],
)
def test_head_that_cannot_be_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        tiny_recipe(**{"segment__auxiliary_head": 0.4, **changes})


def test_names_of_before_stay_what_they_were() -> None:
    plain = tiny_recipe(runtime__device="cpu")
    assert stage_names(plain) == {"proxy": "5c4b6b8dfac3371d", "match": "355e95ca1ce3744d"}
    assert work_name(plain) == "714b309d92fff34a"
    assert work_name(tiny_recipe(**ALONE, segment__auxiliary_head=0.4)) != work_name(tiny_recipe(**ALONE))
