"""A GPU without enough memory: batches are computed in portions, with the same result where statistics allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine import determinism
from engine.errors import EngineError
from engine.events import SilentWriter
from engine.stages import Context, match, proxy, segment
from engine.stages.memory import MemoryGuard
from tests.unit.engine_run.conftest import Runner, tiny_recipe

STAGES = {"proxy": proxy.ProxyStage, "match": match.MatchStage, "segment": segment.SegmentStage}


def limit_memory(monkeypatch: pytest.MonkeyPatch, stage: str, most: int) -> list[int]:
    """Make the stage's network refuse batches of more than ``most``; returns the sizes that were asked for."""
    asked: list[int] = []
    build = STAGES[stage].__init__

    def patched(self: Any, *arguments: Any) -> None:
        build(self, *arguments)
        self.network.register_forward_pre_hook(refuse)

    def refuse(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        asked.append(len(inputs[0]))
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory (a test says so)")

    monkeypatch.setattr(STAGES[stage], "__init__", patched)
    return asked


def recipe(**changes: Any) -> Any:
    wide = {"proxy__batch_size": 16, "segment__batch_size": 16, "match__images": 4, "data__train": 16}
    return tiny_recipe(**{**wide, "evaluate": None, "segment__eval_every": 0, **changes})


@pytest.mark.parametrize(("stage", "size"), [("proxy", 16), ("match", 16), ("segment", 16)])
def test_out_of_memory_halves_until_it_fits_and_says_so(
    monkeypatch: pytest.MonkeyPatch, runner: Runner, stage: str, size: int
) -> None:
    asked = limit_memory(monkeypatch, stage, size // 4)
    assert runner.train(recipe()) == "succeeded"
    assert asked[:3] == [size, size // 2, size // 4] and max(asked[3:]) == size // 4
    texts = [e["values"]["text"] for e in runner.kind("warning")]
    assert [f"stage {stage}" in text for text in texts] == [True, True]
    assert "4 portions" in texts[-1]


def freeze_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch normalisation without batches: then portions must compute what the whole batch does."""

    def fixed(self: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]

    monkeypatch.setattr(nn.BatchNorm2d, "forward", fixed)


@pytest.mark.parametrize("stage", ["match", "segment"])
def test_portions_compute_the_same_training_where_statistics_are_fixed(
    monkeypatch: pytest.MonkeyPatch, runner: Runner, another_runner: Runner, stage: str
) -> None:
    freeze_statistics(monkeypatch)
    plain = recipe(proxy=None, model__dropout=0.0)
    runner.train(plain)
    limit_memory(monkeypatch, stage, 4)
    another_runner.train(plain)
    whole, cut = runner.losses(), another_runner.losses()
    assert whole.keys() == cut.keys()
    assert list(cut.values()) == pytest.approx(list(whole.values()), rel=1e-4)
    assert another_runner.kind("warning") and not runner.kind("warning")


def test_portions_are_remembered_by_the_checkpoint(
    monkeypatch: pytest.MonkeyPatch, runner: Runner, tmp_path: Path
) -> None:
    limit_memory(monkeypatch, "segment", 8)
    wanted = recipe(proxy=None, match=None, segment__steps=6)
    whole = Runner(tmp_path / "whole")
    whole.train(wanted)
    runner.train(wanted, stop=lambda events: any(e["kind"] == "metrics" and e["step"] == 3 for e in events))
    assert runner.train(wanted) == "succeeded"
    assert len(runner.kind("warning")) == 1, "the second attempt starts in portions at once"
    assert runner.weights("segment") == whole.weights("segment")


def test_too_little_memory_for_any_portion_names_the_keys(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> None:
    limit_memory(monkeypatch, "segment", 1)
    with pytest.raises(EngineError, match=r"too little memory for stage segment: lower segment\.batch_size"):
        runner.train(recipe(proxy=None, match=None))


def test_a_step_is_computed_again_from_the_same_statistics_gradients_and_random_numbers(tmp_path: Path) -> None:
    module = nn.BatchNorm2d(3)
    context = Context(recipe(), tmp_path, torch.device("cpu"), SilentWriter(), lambda: False)
    guard = MemoryGuard(context, module, "segment", 16)
    seen: list[tuple[float, bool]] = []

    def compute() -> float:
        x = torch.rand(4, 3, 2, 2)
        seen.append((float(x.sum()), module.weight.grad is None))
        module(x).sum().backward()
        if len(seen) < 3:
            raise torch.OutOfMemoryError("a test says so")
        return float(x.mean())

    determinism.seed_global(context.recipe.seed, "segment", step=7)
    mean = guard.run(7, compute)
    assert guard.splits == 4 and len(set(seen)) == 1 and seen[0][1]
    assert module.num_batches_tracked == 1
    assert float(module.running_mean.mean()) == pytest.approx(0.1 * mean, rel=1e-5)


def test_halving_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> None:
    limit_memory(monkeypatch, "segment", 8)
    with pytest.raises(EngineError, match="too little memory"):
        runner.train(recipe(proxy=None, match=None, runtime__halve_on_oom=False))
    assert not runner.kind("warning")
