"""A GPU without enough memory: batches are computed in portions, with the same result where statistics allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine import determinism
from engine.config import RecipeFileError, load_recipe
from engine.errors import EngineError
from engine.events import SilentWriter
from engine.models.alexnet import CaffeBatchNorm
from engine.stages import Context, match, proxy, segment
from engine.stages.memory import MemoryGuard, in_portions
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
    wide |= {"evaluate": None, "segment__eval_every": 0, "runtime__halve_on_oom": "always"}
    return tiny_recipe(**{**wide, **changes})


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


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_portions_are_alike_in_size_and_none_is_of_one_row_that_could_have_two(count: int) -> None:
    for size in range(1, 80):
        rows = torch.arange(size)
        portions = in_portions(rows, count)
        sizes = [len(portion) for portion in portions]
        assert torch.equal(torch.cat(portions), rows) and len(portions) <= count
        assert max(sizes) - min(sizes) <= 1 and (min(sizes) > 1 or size == 1)
        assert len(portions) == count or min(sizes) <= 3, "as many as are wanted, where there are rows for them"


def test_last_portion_of_a_batch_is_not_left_a_single_image(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> None:
    """36 images in eight portions: five each would leave one, of which small crops have one value a channel."""
    asked = limit_memory(monkeypatch, "segment", 5)
    small = {"segment__batch_size": 36, "segment__crop": 16, "segment__steps": 1}
    assert runner.train(recipe(proxy=None, match=None, **small)) == "succeeded"
    assert sorted(asked[-8:]) == [4] * 4 + [5] * 4


def test_patches_fewer_than_portions_are_not_embedded_one_by_one(
    monkeypatch: pytest.MonkeyPatch, runner: Runner
) -> None:
    asked, draw = limit_memory(monkeypatch, "match", 4), match.sample_patches
    counts = iter([16, 16, 16])
    monkeypatch.setattr(match, "sample_patches", lambda *a, **b: draw(*a, **b).part(slice(0, next(counts, 5))))
    small = {"match__output_size": 16, "match__steps": 3}
    assert runner.train(recipe(proxy=None, segment=None, **small)) == "succeeded"
    assert "4 portions" in runner.kind("warning")[-1]["values"]["text"]
    assert set(asked[-4:]) == {2, 3}


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


@pytest.mark.parametrize(("wish", "warned"), [("always", 1), ("exact", 2), ("never", 2)])
def test_run_that_goes_on_in_portions_against_its_recipe_says_so(
    monkeypatch: pytest.MonkeyPatch, runner: Runner, wish: str, warned: int
) -> None:
    limit_memory(monkeypatch, "segment", 8)
    changes: dict[str, Any] = {"proxy": None, "match": None, "segment__steps": 6}
    runner.train(recipe(**changes), stop=lambda events: events[-1]["kind"] == "metrics" and events[-1]["step"] == 3)
    assert runner.train(recipe(**changes, runtime__halve_on_oom=wish)) == "succeeded"
    texts = [event["values"]["text"] for event in runner.kind("warning")]
    assert len(texts) == warned
    if warned > 1:
        assert "in 2 portions a batch" in texts[1] and f"runtime.halve_on_oom is {wish} now" in texts[1]


def test_too_little_memory_for_any_portion_names_the_keys(monkeypatch: pytest.MonkeyPatch, runner: Runner) -> None:
    limit_memory(monkeypatch, "segment", 1)
    with pytest.raises(EngineError, match=r"too little memory for a step of stage segment: lower segment\.batch_size"):
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


@pytest.mark.parametrize("never", ["never", False])
def test_halving_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, runner: Runner, never: Any) -> None:
    limit_memory(monkeypatch, "segment", 8)
    with pytest.raises(EngineError, match="too little memory") as caught:
        runner.train(recipe(proxy=None, match=None, runtime__halve_on_oom=never))
    assert "halve_on_oom" not in str(caught.value)
    assert not runner.kind("warning")


@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        ("proxy", "proxy.batch_size"),
        ("match", "match.images, match.patches_per_image"),
        ("segment", "segment.batch_size (and raise segment.accumulate)"),
    ],
)
def test_exact_changes_no_batch_statistics(
    monkeypatch: pytest.MonkeyPatch, runner: Runner, stage: str, keys: str
) -> None:
    others = dict.fromkeys({"proxy", "match", "segment"} - {stage})
    wanted = recipe(**others, runtime__halve_on_oom="exact")
    asked = limit_memory(monkeypatch, stage, 8)
    with pytest.raises(EngineError) as caught:
        runner.train(wanted)
    assert f"lower {keys}" in str(caught.value) and "runtime.halve_on_oom=always" in str(caught.value)
    assert len(asked) == 1 and not runner.kind("warning")


def test_exact_halves_batches_without_batch_statistics(tmp_path: Path) -> None:
    assert tiny_recipe().runtime.halve_on_oom == "always"
    context = Context(
        tiny_recipe(runtime__halve_on_oom="exact"), tmp_path, torch.device("cpu"), SilentWriter(), lambda: False
    )
    plain, normed = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    caffe, still = CaffeBatchNorm(3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).eval())
    enabled = [MemoryGuard(context, module, "segment", 16).enabled for module in (plain, normed, caffe, still)]
    assert enabled == [True, False, False, True]


@pytest.mark.parametrize(("written", "meant"), [("true", "always"), ("false", "never"), ("exact", "exact")])
def test_booleans_of_older_recipes_are_read(tmp_path: Path, written: str, meant: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"segment: {{}}\nruntime:\n  halve_on_oom: {written}\n")
    assert load_recipe(file).runtime.halve_on_oom == meant
    file.write_text("segment: {}\n")
    assert load_recipe(file, [f"runtime.halve_on_oom={written}"]).runtime.halve_on_oom == meant
    file.write_text("segment: {}\nruntime:\n  halve_on_oom: 1\n")
    with pytest.raises(RecipeFileError, match="write exact"):
        load_recipe(file)
