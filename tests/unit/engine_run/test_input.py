"""Whole runs on pixels from 0 to 255 (``model.input: rgb255``), as colour networks of Caffe read them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine import models
from engine.config import checks
from engine.config.schema import ModelConfig
from engine.data.pipeline import normalise
from engine.models import build_backbone
from engine.models.export import export_backbone, export_segmenter
from tests.unit.engine_run.conftest import Runner, tiny_recipe


def test_run_on_undivided_pixels_trains_evaluates_and_hands_its_weights_on(
    runner: Runner, another_runner: Runner
) -> None:
    recipe = tiny_recipe(proxy=None, model__input="rgb255", model__head="fcn")
    assert runner.train(recipe) == "succeeded"
    assert runner.kind("confusion", "evaluate")
    file = runner.run_dir / "backbone.safetensors"
    card = export_backbone(runner.run_dir, file)["input"]
    assert (card["scale"], card["std"]) == (1.0, [1.0] * 3)
    assert export_segmenter(runner.run_dir, runner.run_dir / "whole.pt2", 32)["input"] == card

    next_recipe = tiny_recipe(proxy=None, match=None, model__head="fcn", model__weights=str(file))
    assert another_runner.train(next_recipe) == "succeeded"
    (told,) = another_runner.kind("weights")
    assert told["values"]["notes"] == ["the first convolution was rewritten from input rgb255 to input rgb"]
    assert told["values"]["missing"] == told["values"]["unexpected"] == 0
    assert max(runner.losses().values()) < 5, "as of pixels that are divided"

    rgb = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    keys = recipe.model.model_dump() | {"weights": str(file)}
    nets = {
        name: build_backbone(ModelConfig.model_validate(keys | {"input": name})).eval() for name in ("rgb", "rgb255")
    }
    kept, first = load_file(file), "stages.0.0.conv.weight"
    assert torch.equal(kept[first], nets["rgb255"].state_dict()[first])
    # A checkpoint says it as well, by the recipe beside it.
    keys["weights"] = str(runner.run_dir / "checkpoints/segment/final/model.safetensors")
    again = {name: build_backbone(ModelConfig.model_validate(keys | {"input": name})).state_dict() for name in nets}
    assert all(torch.equal(again[name][first], nets[name].state_dict()[first]) for name in nets)
    here, there = (net(normalise(rgb, name)).detach() for name, net in nets.items())
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4 * float(there.abs().max()))


def test_proxy_tasks_do_not_read_undivided_pixels() -> None:
    with pytest.raises(ValueError, match=r"do not read model\.input rgb255: set proxy=null"):
        tiny_recipe(model__input="rgb255", model__head="fcn")


def test_hypercolumns_hold_undivided_pixels_with_the_head_of_the_release_alone() -> None:
    with pytest.raises(ValueError, match=r"rgb255 makes them too large for it: write model\.head=fcn or fcn32"):
        tiny_recipe(proxy=None, model__input="rgb255")
    assert tiny_recipe(proxy=None, model__input="rgb255", model__backbone="vgg16").model.head == "hypercolumn"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model__head": "fcn32", "model__fc_channels": 0}, r"fcn32 needs fc6 and fc7: set model\.fc_channels"),
        (
            {"model__backbone": "resnet18", "model__dilated": True},
            r"needs maps of doubling scale: set model\.dilated=false, or model\.head=fcn or aspp",
        ),
        ({"model__dilated": True}, "tiny_vgg has no dilated form; write false, or use a ResNet"),
        ({"match": None, "segment__reset_layers": 2}, "undoes what the match stage did, and there is none: write 0"),
    ],
)
def test_networks_that_could_not_be_built_after_earlier_stages_are_refused_with_the_recipe(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        tiny_recipe(**changes)


def test_a_head_that_no_stage_builds_may_be_anything() -> None:
    tiny_recipe(segment=None, evaluate=None, model__backbone="resnet18", model__dilated=True)
    tiny_recipe(segment=None, evaluate=None, model__head="fcn32", model__fc_channels=0)


def test_the_recipe_knows_which_backbones_can_be_dilated() -> None:
    """It must not load torch to say so."""
    assert set(checks.DILATED) == set(models.DILATED)
