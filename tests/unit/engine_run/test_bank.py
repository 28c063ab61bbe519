"""Cross-batch memory in the match stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config.schema import Recipe
from engine.events import SilentWriter
from engine.mixmatch.loss import normalise
from engine.stages import Context
from engine.stages.match import MatchStage
from tests.unit.engine_run.conftest import Runner
from tests.unit.engine_run.test_memory import limit_memory

Make = Callable[..., Recipe]
ALONE: dict[str, Any] = {"proxy": None, "segment": None, "evaluate": None, "match__steps": 6, "match__memory": 2}


def stage_of(recipe: Recipe, folder: Path) -> MatchStage:
    context = Context(recipe, folder, torch.device("cpu"), SilentWriter(), lambda: False)
    assert recipe.match is not None
    return MatchStage(context, recipe.match)


@pytest.mark.parametrize("graphs", [1, 2])
def test_memory_holds_the_embeddings_of_the_last_steps(tmp_path: Path, make_recipe: Make, graphs: int) -> None:
    stage = stage_of(make_recipe(**ALONE, match__graphs=graphs), tmp_path)
    assert stage.bank is not None and len(stage.bank.labels) == 2 * graphs * 3 * 4
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for step in range(3):
        stage.step(step)
        assert len(stage.seen) == graphs
        seen += [(normalise(rows), labels) for rows, labels in stage.seen]
    place, newest = int(stage.bank.place), seen[-2 * graphs :]
    held = sum(len(labels) for _, labels in newest)
    at = [(place - held + k) % len(stage.bank.labels) for k in range(held)]
    assert torch.equal(stage.bank.labels[at], torch.cat([labels for _, labels in newest]))
    assert torch.equal(stage.bank.embeddings[at], torch.cat([rows for rows, _ in newest]))


@pytest.mark.parametrize("loss", ["triplet", "info_nce"])
def test_memory_changes_the_second_step_and_not_the_first(runner: Runner, tmp_path: Path, loss: str) -> None:
    from tests.unit.engine_run.conftest import tiny_recipe

    plain = Runner(tmp_path / "plain")
    plain.train(tiny_recipe(**{**ALONE, "match__memory": 0}, match__loss=loss))
    runner.train(tiny_recipe(**ALONE, match__loss=loss))
    with_memory, without = runner.losses(), plain.losses()
    assert with_memory["match", 1] == pytest.approx(without["match", 1], rel=1e-6)
    assert with_memory["match", 2] != without["match", 2]


@pytest.mark.parametrize("loss", ["triplet", "info_nce"])
def test_memory_resumed_equals_the_run_that_was_never_stopped(
    runner: Runner, another_runner: Runner, make_recipe: Make, loss: str
) -> None:
    recipe = make_recipe(**ALONE, match__loss=loss)
    runner.train(recipe)
    at_three: Callable[[Any], bool] = lambda events: any(e["kind"] == "metrics" and e["step"] == 3 for e in events)  # noqa: E731
    assert another_runner.train(recipe, at_three) == "stopped"
    assert another_runner.train(recipe) == "succeeded"
    assert another_runner.losses() == runner.losses()
    assert another_runner.weights("match") == runner.weights("match")


def test_memory_is_not_part_of_what_the_stage_hands_on(
    runner: Runner, another_runner: Runner, make_recipe: Make
) -> None:
    runner.train(make_recipe(**ALONE))
    another_runner.train(make_recipe(**{**ALONE, "match__memory": 0}))
    assert len(runner.weights("match")) == len(another_runner.weights("match"))


def test_memory_is_stored_once_when_a_step_is_computed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_recipe: Make
) -> None:
    limit_memory(monkeypatch, "match", 8)
    recipe = make_recipe(**{**ALONE, "match__images": 4}, runtime__halve_on_oom="always")
    stage = stage_of(recipe, tmp_path)
    for step in range(2):
        stage.step(step)
    assert stage.splits == 2 and stage.bank is not None
    assert int((stage.bank.labels >= 0).sum()) == 2 * 16
