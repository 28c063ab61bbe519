"""Random resizing and colours before patches and proxy tasks: what is asked for reaches the stage, and off is off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config import Recipe
from engine.events import SilentWriter
from engine.mixmatch.windows import Patches
from engine.stages import Context
from engine.stages.match import MatchStage
from tests.unit.engine_run.conftest import Runner, tiny_recipe

Make = Callable[..., Recipe]
ALONE: dict[str, Any] = {"proxy": None, "segment": None, "evaluate": None}


def mixed(folder: Path, **match: Any) -> tuple[Patches, Tensor]:
    """Patches of the first batch and their pixels."""
    recipe = tiny_recipe(**ALONE, **{f"match__{key}": value for key, value in match.items()})
    assert recipe.match is not None
    context = Context(recipe, folder, torch.device("cpu"), SilentWriter(), lambda: False)
    return MatchStage(context, recipe.match)._mix_now(0)


def spread(patches: Patches) -> int:
    """Distance in pixels of the farthest centres of one image, along a side."""
    found = 0
    for image in range(int(patches.image.max()) + 1):
        for centres in (patches.cy, patches.cx):
            of_image = centres[patches.image == image]
            found = max(found, int(of_image.max() - of_image.min()))
    return found


def test_match_draws_patches_from_resized_images(tmp_path: Path) -> None:
    """Images of 32 pixels at a quarter lie on 8 pixels of the crop, and nothing else has a label."""
    patches, _ = mixed(tmp_path, scale_jitter=[0.25, 0.25], patches_per_image=8)
    assert spread(patches) < 8
    patches, _ = mixed(tmp_path, patches_per_image=8)
    assert spread(patches) > 16


def test_match_changes_colours_alone(tmp_path: Path) -> None:
    plain, plain_pixels = mixed(tmp_path)
    patches, pixels = mixed(tmp_path, colour_jitter=0.5)
    for name in ("image", "cy", "cx", "size", "label"):
        assert torch.equal(getattr(plain, name), getattr(patches, name)), name
    assert (pixels - plain_pixels).abs().mean() > 0.1
    # Brightness and contrast move all pixels of an image by one linear map, here seen in the order of its values.
    a, b = plain_pixels[0, 0].flatten(), pixels[0, 0].flatten()
    assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.9


@pytest.mark.parametrize("changes", [{"scale_jitter": [0.5, 2.0]}, {"colour_jitter": 0.5}])
def test_proxy_sees_other_images(runner: Runner, another_runner: Runner, changes: dict[str, Any]) -> None:
    alone: dict[str, Any] = {"match": None, "segment": None, "evaluate": None, "proxy__steps": 1}
    runner.train(tiny_recipe(**alone, **{f"proxy__{key}": value for key, value in changes.items()}))
    another_runner.train(tiny_recipe(**alone))
    assert runner.losses()["proxy", 1] != another_runner.losses()["proxy", 1]


@pytest.mark.parametrize("stage", ["proxy", "match", "segment"])
def test_jitter_upside_down_is_refused(stage: str) -> None:
    with pytest.raises(ValueError, match=rf"{stage}\.scale_jitter 2, 0\.5: give the smaller factor first"):
        tiny_recipe(**{f"{stage}__scale_jitter": [2.0, 0.5]})


@pytest.mark.parametrize("kind", ["moco", "densecl"])
@pytest.mark.parametrize("changes", [{"scale_jitter": [0.5, 2.0]}, {"colour_jitter": 0.5}])
def test_task_with_views_of_its_own_refuses_jitter(kind: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"proxy.kind {kind} draws views of its own: leave proxy.scale_jitter"):
        tiny_recipe(proxy__kind=kind, **{f"proxy__{key}": value for key, value in changes.items()})
