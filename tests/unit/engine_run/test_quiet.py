"""Patches that are made ahead, and reports. What quiet steps wait for: ``tests/numerics/test_discipline.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config.schema import Recipe
from engine.events import SilentWriter
from engine.stages import Context, build_stage
from engine.stages.ahead import Ahead
from engine.stages.match import MatchStage
from engine.watch import FiniteWatch
from tests.pretended_gpu import GPU, SIZE, VALUE, PretendedGpu

Make = Callable[..., Recipe]


def stage_of(recipe: Recipe, folder: Path, name: str, device: torch.device) -> Any:
    context = Context(recipe, folder, device, SilentWriter(), lambda: False)
    return build_stage(context, name)


def test_report_waits_and_only_once(tmp_path: Path, make_recipe: Make) -> None:
    with PretendedGpu() as gpu:
        stage, watch = stage_of(make_recipe(), tmp_path, "match", GPU), FiniteWatch("match")
        gpu.restart()
        watch.note(stage.step(0)["loss"], 1)
        assert gpu.restart().kinds(beside=True) == {SIZE: 1}, "the patches of the next step"
        watch.check()
    assert gpu.count.kinds() == {VALUE: 1}


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("graphs", [1, 2])
def test_patches_made_ahead_change_no_number(tmp_path: Path, make_recipe: Make, graphs: int, scope: str) -> None:
    losses = []
    for active in (False, True):
        recipe = make_recipe(match__graphs=graphs, match__graph_scope=scope, match__steps=4)
        stage = stage_of(recipe, tmp_path, "match", torch.device("cpu"))
        assert isinstance(stage, MatchStage) and isinstance(stage.ahead, Ahead)
        stage.ahead.active = active
        losses.append([float(stage.step(step)["loss"]) for step in range(4)])
        assert not stage.ahead._ready, "nothing is made beyond the last step"
    assert losses[0] == losses[1]


def test_patches_made_ahead_of_another_step_are_not_used() -> None:
    ahead = Ahead(torch.device("cpu"))
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return 10 * number

    ahead.prepare([3, 5], make)
    assert ahead.take(4, make) == 40 and ahead.take(3, make) == 30 and ahead.take(3, make) == 30
    assert ahead.take(5, make) == 50
    assert made == [3, 5, 4, 3]
