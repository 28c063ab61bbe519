"""Steps without a report do not wait for a GPU: its way is gone on the CPU, and every operation is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine import host
from engine.config.schema import Recipe
from engine.events import SilentWriter
from engine.stages import Context, build_stage
from engine.stages.ahead import Ahead
from engine.stages.match import MatchStage
from engine.watch import FiniteWatch

WAITING = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::bincount",
    "aten::repeat_interleave",
}
"""Operations whose result, or its size, the host has to know."""
Make = Callable[..., Recipe]


class Watch(TorchDispatchMode):
    """Counts the operations that would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        self.operations += 1
        if name in WAITING:
            self.waits[name] += 1
        if name == "aten::index" and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.waits["aten::index with flags"] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def like_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "on_host", lambda tensor: False)


def stage_of(recipe: Recipe, folder: Path, name: str) -> Any:
    context = Context(recipe, folder, torch.device("cpu"), SilentWriter(), lambda: False)
    return build_stage(context, name)


@pytest.mark.parametrize("strategy", ["graph", "random", "balanced", "semi_hard"])
@pytest.mark.parametrize("loss", ["triplet", "info_nce"])
def test_quiet_match_step_waits_for_nothing_once_its_patches_are_made(
    tmp_path: Path, make_recipe: Make, like_a_gpu: None, strategy: str, loss: str
) -> None:
    stage = stage_of(make_recipe(match__strategy=strategy, match__loss=loss), tmp_path, "match")
    stage.step(0)
    stage.ahead.prepare([1], stage._mix_now)  # on a GPU this happens beside step 0
    watch = FiniteWatch("match")
    with Watch() as seen:
        watch.note(stage.step(1)["loss"], 2)
    assert seen.operations > 100
    assert seen.waits == {}


def test_mixing_waits_where_expected_so_the_watch_sees_something(
    tmp_path: Path, make_recipe: Make, like_a_gpu: None
) -> None:
    stage = stage_of(make_recipe(), tmp_path, "match")
    with Watch() as seen:
        stage._mix_now(0)
    assert seen.waits["aten::nonzero"] == 1
    with Watch() as seen:
        watch = FiniteWatch("match")
        watch.note(stage.step(0)["loss"], 1)
        watch.check()
    assert seen.waits["aten::_local_scalar_dense"] == 1, "a report waits, and only once"


def test_quiet_segment_step_waits_for_nothing(tmp_path: Path, make_recipe: Make, like_a_gpu: None) -> None:
    stage = stage_of(make_recipe(), tmp_path, "segment")
    stage.step(0)
    watch = FiniteWatch("segment")
    with Watch() as seen:
        watch.note(stage.step(1)["loss"], 2)
    assert seen.operations > 100
    assert seen.waits == {}


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("graphs", [1, 2])
def test_patches_made_ahead_change_no_number(tmp_path: Path, make_recipe: Make, graphs: int, scope: str) -> None:
    losses = []
    for active in (False, True):
        stage = stage_of(make_recipe(match__graphs=graphs, match__graph_scope=scope, match__steps=4), tmp_path, "match")
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
