"""Fine-tuning may begin with the last layers as they were before tuning (segment.reset_layers)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine import determinism
from engine.config import RecipeFileError, load_recipe
from engine.config.checks import LAYERS
from engine.config.forking import TRAINED_WITH
from engine.events import SilentWriter
from engine.models import BUILDERS, build_backbone
from engine.models.reset import reset_layers
from engine.models.weights import load_backbone
from engine.stages import build_stage
from engine.stages.base import Context
from engine.stages.segment import SegmentStage
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.test_resume import at


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_layers_hold_all_that_a_backbone_has_in_the_order_of_its_maps(name: str) -> None:
    backbone = BUILDERS[name](3, 0.125, torch.Generator().manual_seed(0)).eval()
    assert len(backbone.layers()) == LAYERS[name]
    held = [id(tensor) for layer in backbone.layers() for module in layer for tensor in module.state_dict().values()]
    assert len(held) == len({id(tensor) for tensor in backbone.state_dict().values()}) == len(backbone.state_dict())
    x = torch.rand((1, 3, 96, 96), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        *before, last = [layer for layer, _ in backbone.hyper(x)]
        for tensor in (p for module in backbone.layers()[-1] for p in module.parameters()):
            tensor.add_(0.1)
        *after, changed = [layer for layer, _ in backbone.hyper(x)]
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))
    assert not torch.equal(last, changed)


@pytest.mark.parametrize("count", [0, 2, 5])
def test_reset_gives_the_last_layers_alone_the_values_of_the_other(count: int) -> None:
    ours, other = (BUILDERS["alexnet"](3, 0.25, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    ours.train()(torch.rand((2, 3, 64, 64)))  # statistics differ, too
    kept = {name: value.clone() for name, value in ours.state_dict().items()}
    reset_layers(ours, other, count)
    for name, value in ours.state_dict().items():
        number = int(name.split(".")[1])
        assert torch.equal(value, (other.state_dict() if number >= 5 - count else kept)[name]), name


@pytest.mark.parametrize("proxy", [False, True])
def test_fine_tuning_begins_with_tuned_layers_below_and_those_before_matching_on_top(
    runner: Runner, proxy: bool
) -> None:
    changes = {} if proxy else {"proxy": None}
    recipe = tiny_recipe(**changes, segment__reset_layers=2, segment__optim={"lr": 1e-12})
    assert runner.train(recipe, at("segment", 1)) == "stopped"
    context = Context(recipe, runner.run_dir, torch.device("cpu"), SilentWriter(), lambda: False)
    stage = build_stage(context, "segment")
    assert isinstance(stage, SegmentStage)
    stage.step(0)
    tuned = context.backbone().state_dict()
    before = build_backbone(recipe.model, determinism.generator(recipe.seed, "init/backbone"))
    if proxy:
        load_backbone(before, runner.run_dir / "checkpoints/proxy/final/model.safetensors")
    weights = [name for name in tuned if name.endswith("conv.weight")]
    assert len(weights) == 7
    for name in weights:
        known, here = before.state_dict()[name], stage.model.backbone.state_dict()[name]
        assert not torch.equal(tuned[name], known), "tuning moved every layer"
        last_two = name.startswith(("stages.4.0", "stages.3.1"))
        torch.testing.assert_close(here, known if last_two else tuned[name], rtol=0, atol=1e-7)


def test_a_fork_of_another_seed_resets_to_what_its_parent_began_with(runner: Runner) -> None:
    recipe = tiny_recipe(proxy=None, segment__reset_layers=2)
    assert runner.train(recipe, at("segment", 1)) == "stopped"
    file = runner.run_dir / "checkpoints/match/final/meta.json"
    meta = json.loads(file.read_text())
    file.write_text(json.dumps({**meta, "recipe": {**meta["recipe"], "seed": 9}, TRAINED_WITH: meta["recipe"]}))
    child = tiny_recipe(proxy=None, segment__reset_layers=2, seed=9)
    context = Context(child, runner.run_dir, torch.device("cpu"), SilentWriter(), lambda: False)
    found, began = (
        context.backbone_before_match(),
        build_backbone(recipe.model, determinism.generator(recipe.seed, "init/backbone")),
    )
    assert all(torch.equal(value, began.state_dict()[name]) for name, value in found.state_dict().items())


def test_run_with_reset_layers_goes_on_exactly(runner: Runner, another_runner: Runner) -> None:
    recipe = tiny_recipe(proxy=None, segment__reset_layers=2)
    assert another_runner.train(recipe) == "succeeded"
    assert runner.train(recipe, at("segment", 2)) == "stopped"
    assert runner.train(recipe) == "succeeded"
    assert runner.weights("segment") == another_runner.weights("segment")
    plain = Runner(runner.run_dir.parent / "plain")
    assert plain.train(tiny_recipe(proxy=None)) == "succeeded"
    assert plain.weights("segment") != runner.weights("segment")


def test_more_layers_than_there_are_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {backbone: alexnet}\nsegment: {reset_layers: 6}\n")
    with pytest.raises(RecipeFileError, match="alexnet has 5 layers, write 0 to 5"):
        load_recipe(file)
