"""The moving average of weights: its arithmetic, what is evaluated and handed on, and that runs go on exactly."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import nn

from engine import checkpoint
from engine.config.determining import stage_names, work_name
from engine.config.forking import make_plan
from engine.errors import CheckpointError
from engine.models.export import export_segmenter
from engine.stages import evaluate
from engine.stages.ema import Averaged, decay_after
from engine.stages.training import Updater
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.processes import Ranks
from tests.unit.engine_run.test_distributed import SHARED, losses, weights
from tests.unit.engine_run.test_resume import assert_equal_runs, at
from tests.unit.engine_run.test_sharing import FROZEN, torchrun

ALONE: dict[str, Any] = {"proxy": None, "match": None}


def final(run: Runner) -> dict[str, torch.Tensor]:
    return load_file(run.run_dir / "checkpoints" / "segment" / "final" / "model.safetensors")


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def test_decay_rises_to_what_it_is_set_to() -> None:
    assert [decay_after(n, 0.9) for n in (1, 2, 10)] == pytest.approx([2 / 11, 3 / 12, 11 / 20])
    assert decay_after(79, 0.9) < decay_after(80, 0.9) == 81 / 90 == decay_after(100, 0.9) == 0.9
    assert decay_after(1, 0.1) == 0.1


def test_average_is_that_of_a_loop_and_has_the_buffers_of_the_trained() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    averaged = Averaged(net, 0.6)
    expected = {name: value.detach().numpy().copy() for name, value in net.named_parameters()}
    made = np.random.default_rng(0)
    for n in range(1, 30):
        d = min(0.6, (1 + n) / (10 + n))
        for name, value in net.named_parameters():
            fresh = made.normal(size=tuple(value.shape))
            value.data.copy_(torch.from_numpy(fresh))
            for place in np.ndindex(fresh.shape):
                expected[name][place] = d * expected[name][place] + (1 - d) * fresh[place]
        net(torch.randn(4, 2, dtype=torch.float64))
        averaged.update(n)
    for name, value in averaged.average.named_parameters():
        np.testing.assert_allclose(value.detach().numpy(), expected[name], rtol=1e-12)
    for own, other in zip(averaged.average.buffers(), net.buffers(), strict=True):
        assert torch.equal(own, other) and own.data_ptr() != other.data_ptr()
    assert int(averaged.average[1].num_batches_tracked) == 29  # type: ignore[index]


def test_average_has_no_gradients_and_stays_in_evaluation_mode() -> None:
    averaged = Averaged(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), 0.9).train()
    assert averaged.trained.training and not any(part.training for part in averaged.average.modules())
    assert not any(value.requires_grad for value in averaged.average.parameters())
    assert all(value.requires_grad for value in averaged.trained.parameters())


# ---- runs ------------------------------------------------------------------------------------------------------------


def test_run_hands_on_the_average_and_trains_as_without(
    runner: Runner, another_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, np.ndarray]] = []
    apply = Updater.apply

    def noted(updater: Updater) -> None:
        if not seen:
            seen.append({k: v.detach().double().numpy().copy() for k, v in updater.module.named_parameters()})
        apply(updater)
        seen.append({k: v.detach().double().numpy().copy() for k, v in updater.module.named_parameters()})

    monkeypatch.setattr(Updater, "apply", noted)
    assert runner.train(tiny_recipe(**ALONE, segment__ema=0.4, runtime__keep_every=6)) == "succeeded"
    monkeypatch.undo()
    assert another_runner.train(tiny_recipe(**ALONE)) == "succeeded"
    assert runner.losses() == another_runner.losses(), "the average takes no part in the training"
    average = seen[0]
    for n, values in enumerate(seen[1:], 1):
        d = min(0.4, (1 + n) / (10 + n))
        average = {name: d * average[name] + (1 - d) * values[name] for name in average}
    handed, plain = final(runner), final(another_runner)
    assert handed.keys() == plain.keys()
    for name, value in average.items():
        np.testing.assert_allclose(handed[name].numpy(), value, rtol=1e-5, atol=1e-7, err_msg=name)
    assert not torch.equal(handed["classifier.weight"], plain["classifier.weight"])
    for name in handed.keys() - average.keys():
        assert torch.equal(handed[name], plain[name]), f"{name}: buffers are those of the trained network"
    kept = load_file(runner.run_dir / "checkpoints" / "segment" / "step_00000006" / "model.safetensors")
    for name, value in plain.items():
        assert torch.equal(kept[f"trained.{name}"], value) and torch.equal(kept[f"average.{name}"], handed[name])


def test_run_says_which_weights_were_evaluated_and_handed_on(
    runner: Runner, another_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[dict[str, torch.Tensor]] = []
    work = evaluate.measure

    def noted(context: Any, model: nn.Module, *others: Any, **more: Any) -> Any:
        measured.append({name: value.clone() for name, value in model.state_dict().items()})
        return work(context, model, *others, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "measure", noted)
    for run, ema, said in ((runner, 0.9, "ema"), (another_runner, 0.0, "trained")):
        assert run.train(tiny_recipe(**ALONE, segment__ema=ema)) == "succeeded"
        evaluations = run.kind("confusion")
        assert [(e["stage"], e["step"]) for e in evaluations] == [("segment", 3), ("segment", 6), ("evaluate", 1)]
        assert [e["values"]["weights"] for e in evaluations] == [said] * 3
        folder = checkpoint.final_checkpoint(run.run_dir, "segment")
        assert folder is not None and checkpoint.read_meta(folder)["weights"] == said
        assert len(measured) == 3, "on the way, at the last step, and at the end"
        for name, value in final(run).items():
            assert torch.equal(measured[1][name], value) and torch.equal(measured[2][name], value), name
        measured.clear()


def test_handed_on_average_is_exported(runner: Runner, tmp_path: Path) -> None:
    assert runner.train(tiny_recipe(**ALONE, segment__ema=0.5, model__head="fcn", evaluate=None)) == "succeeded"
    card = export_segmenter(runner.run_dir, tmp_path / "net.pt2", 32)
    assert card["stage"] == "segment" and (tmp_path / "net.pt2").is_file()


def test_average_begins_at_the_layers_that_were_reset(runner: Runner) -> None:
    """At a rate of nothing it is the network as it stood after the reset, and has nothing of the match stage's."""
    recipe = tiny_recipe(proxy=None, segment__ema=0.99, segment__reset_layers=7, segment__optim={"lr": 1e-12})
    assert runner.train(recipe) == "succeeded"
    start = Runner(runner.run_dir.parent / "start")
    assert start.train(tiny_recipe(**ALONE, segment__optim={"lr": 1e-12})) == "succeeded"
    handed, expected = final(runner), final(start)
    for name in (name for name in handed if name.startswith("backbone.") and "conv" in name):
        torch.testing.assert_close(handed[name], expected[name], rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.slow
def test_run_stopped_between_steps_goes_on_to_the_bit(runner: Runner, another_runner: Runner) -> None:
    recipe = tiny_recipe(**ALONE, segment__ema=0.9)
    assert another_runner.train(recipe) == "succeeded"
    for step in (1, 3, 4):
        assert runner.train(recipe, stop=at("segment", step)) == "stopped"
    assert runner.train(recipe) == "succeeded"
    assert_equal_runs(runner, another_runner, ["segment"])


@pytest.mark.slow
def test_run_killed_in_the_middle_goes_on_to_the_bit(runner: Runner, another_runner: Runner) -> None:
    recipe = tiny_recipe(**ALONE, segment__ema=0.9, segment__steps=40, segment__eval_every=10)
    recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"checkpoint_every": 5})})
    assert another_runner.finish(recipe)[0] == 0
    assert runner.kill_at(recipe, signal.SIGKILL, "segment", 12) == -signal.SIGKILL
    assert runner.finish(recipe)[0] == 0
    assert_equal_runs(runner, another_runner, ["segment"])
    assert runner.kind("run_started")[1]["values"]["resumed_step"] >= 10


@pytest.mark.slow
def test_run_whose_average_was_changed_is_not_gone_on_with(runner: Runner) -> None:
    runner.train(tiny_recipe(**ALONE, runtime__keep_every=2), stop=at("segment", 3))
    changed = tiny_recipe(**ALONE, segment__ema=0.9)
    with pytest.raises(CheckpointError, match=r"made with segment\.ema=0\.0, the recipe now says 0\.9"):
        runner.train(changed)
    with_match = Runner(runner.run_dir.parent / "matched")
    with_match.train(tiny_recipe(proxy=None, runtime__keep_every=2), stop=at("segment", 4))
    plan = make_plan(tiny_recipe(proxy=None, segment__ema=0.9), with_match.run_dir, "3")
    assert plan.begun is None and "segment.ema is 0.9 here and 0.0 in run 3" in plan.note


@torchrun
@pytest.mark.slow
@pytest.mark.parametrize("exchange", ["ddp", "retry"])
def test_two_processes_average_as_one(tmp_path: Path, exchange: str) -> None:
    keys = {**SHARED, **ALONE, "segment__ema": 0.9, "runtime__exchange": exchange, "segment__eval_every": 3}
    recipe = tiny_recipe(**{**keys, "evaluate": {"batch_size": 2, "show_images": 0}})
    for processes in (1, 2):
        code, told = Ranks(recipe, tmp_path / str(processes), processes, FROZEN).finish()
        assert code == 0, told
    one, two = (losses(tmp_path / str(processes), "segment") for processes in (1, 2))
    assert len(one) == len(two) == 6 and two == pytest.approx(one, rel=1e-4)
    first, second = (weights(tmp_path / str(processes), "segment") for processes in (1, 2))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=2e-3, atol=2e-5, msg=name)


# ---- the recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0, -0.1, 2])
def test_decay_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ValidationError, match=r"segment\.ema"):
        tiny_recipe(segment__ema=value)


def test_names_of_before_stay_what_they_were() -> None:
    plain = tiny_recipe(runtime__device="cpu")
    assert stage_names(plain) == {"proxy": "5c4b6b8dfac3371d", "match": "355e95ca1ce3744d"}
    assert work_name(plain) == "714b309d92fff34a"
    assert work_name(tiny_recipe(runtime__device="cpu", segment__ema=0.9)) != work_name(plain), "it takes memory"
    old = json.loads(plain.model_dump_json())
    assert old["segment"]["ema"] == 0.0
