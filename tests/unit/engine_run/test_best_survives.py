"""The best checkpoint over kills, stops, full disks and damage: as if nothing had happened, to the bit."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import checkpoint, loop, saving
from engine.config import Recipe
from engine.config.best import best_folder
from engine.errors import CheckpointError
from engine.stages.segment import SegmentStage
from tests.crashpoints import FULL, KILL, end_at, steps_of, takes_room
from tests.unit.engine_run.conftest import Runner, tiny_recipe
from tests.unit.engine_run.processes import Ranks
from tests.unit.engine_run.test_best import ALONE, by
from tests.unit.engine_run.test_distributed import SHARED
from tests.unit.engine_run.test_resume import assert_equal_runs, at
from tests.unit.engine_run.test_sharing import FROZEN, torchrun
from tests.waiting import until

ADAMW = {"optimiser": "adamw", "lr": 0.01}


def best_files(run: Runner) -> dict[str, bytes]:
    folder = best_folder(run.run_dir)
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "optim.pt")}


def told(run: Runner) -> list[tuple[int, float]]:
    """(step, value) of every best, each once: an attempt tells again what it goes on from."""
    found = [(e["values"]["step"], e["values"]["value"]) for e in run.kind("best")]
    return list(dict.fromkeys(found))


def assert_same_best(one: Runner, other: Runner, least: int = 2) -> None:
    """Curves, evaluations, what is handed on, and the best, to the last bit; ``least``: so often there is a better."""
    assert_equal_runs(one, other, ["segment"])
    assert told(one) == told(other) and len(told(one)) >= least
    finals = [checkpoint.read_meta(run.run_dir / "checkpoints/segment/final") for run in (one, other)]
    assert finals[0]["best"] == finals[1]["best"] and finals[0].get("stopped_early") == finals[1].get("stopped_early")
    assert best_files(one) == best_files(other)
    names = [sorted(entry.name for entry in (run.run_dir / "checkpoints/segment").iterdir()) for run in (one, other)]
    assert names == [["best", "final"]] * 2


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_adamw_ema_and_best_over_several_kills_equal_the_run_that_was_not_killed(
    runner: Runner, another_runner: Runner
) -> None:
    keys = {"segment__optim": ADAMW, "segment__ema": 0.9, "runtime__checkpoint_every": 7}
    recipe = by("loss", segment__steps=80, segment__eval_every=4, **keys)
    assert another_runner.finish(recipe)[0] == 0
    for step in (9, 17, 33, 46, 60):
        assert runner.kill_at(recipe, signal.SIGKILL, "segment", step) == -signal.SIGKILL
    assert runner.finish(recipe)[0] == 0
    assert_same_best(runner, another_runner)
    assert len(runner.kind("run_started")) == 6 and runner.kind("warning") == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", [KILL, FULL])
def test_ended_at_every_step_at_which_checkpoints_change_the_disk(
    runner: Runner, another_runner: Runner, tmp_path: Path, fault: str
) -> None:
    """Each place of each kind: writing, waiting, renaming, linking and removing the best and its neighbours."""
    recipe = by("loss", segment__steps=8, runtime__keep_checkpoints=1)
    assert another_runner.train(recipe) == "succeeded"
    seen = steps_of(lambda: Runner(tmp_path / "seen").train(recipe), tmp_path / "seen")
    shorts = [step for step in seen if "checkpoints/segment" in step and (fault == KILL or takes_room(step))]
    places = [number for number, step in enumerate(seen, 1) if step in shorts]
    assert any("best.writing" in step for step in shorts) and len(places) > 30
    for number in places[:: 1 if fault == KILL else 3]:
        run = Runner(tmp_path / f"{fault}{number}")
        how = end_at(lambda run=run: run.train(recipe), run.run_dir, fault, number)  # type: ignore[misc]
        assert how == KILL if fault == KILL else how.startswith("CheckpointError: the disk is full"), how
        assert run.train(recipe) == "succeeded", seen[number - 1]
        assert_same_best(run, another_runner)
        assert run.kind("warning") == [], seen[number - 1]
        shutil.rmtree(run.run_dir)


@pytest.mark.parametrize(
    ("where", "name"), [(saving, "tell_best"), (loop, "stopped_early"), (checkpoint, "_put_best_beside")]
)
def test_ended_between_the_disk_and_the_word_of_it(
    runner: Runner, another_runner: Runner, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    recipe = by("loss", patience=2, segment__optim={"lr": 0.2}, segment__steps=40)
    assert another_runner.train(recipe) == "succeeded"
    assert another_runner.kind("early_stop"), "this training stops early"

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, name, die)
        with pytest.raises(KeyboardInterrupt):
            runner.train(recipe)
    assert runner.train(recipe) == "succeeded"
    assert_same_best(runner, another_runner)
    mine, twin = (run.kind("early_stop")[-1] for run in (runner, another_runner))
    assert (mine["step"], mine["values"]) == (twin["step"], twin["values"])


def test_killed_with_a_checkpoint_at_the_very_step_at_which_it_stops_early(
    runner: Runner, another_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience is at its end where the next attempt goes on: nothing more is trained."""
    values = {2: 1.0, 4: 3.0, 6: 2.0, 8: 2.5, 10: 9.0}
    note = "engine.stages.segment.value_of"
    steps: list[int] = []
    observe = SegmentStage.observe

    def observed(stage: SegmentStage, done: int) -> dict[str, float]:
        steps.append(done)
        return observe(stage, done)

    monkeypatch.setattr(SegmentStage, "observe", observed)
    monkeypatch.setattr(note, lambda *_: values[steps[-1]])
    recipe = by("miou", patience=2, runtime__checkpoint_every=4)
    assert another_runner.train(recipe) == "succeeded"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stopped_early", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runner.train(recipe)
    newest = checkpoint.step_checkpoints(runner.run_dir, "segment")[-1]
    assert newest.step == 8 and newest.best() == 4
    assert runner.train(recipe) == "succeeded"
    assert runner.kind("run_started")[1]["values"]["resumed_step"] == 8
    assert_same_best(runner, another_runner)
    assert [e["step"] for e in runner.kind("early_stop")] == [8]


# ---- asked to leave --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["miou", "loss"])
def test_left_during_an_evaluation_the_best_is_found_by_the_next_attempt(
    runner: Runner, another_runner: Runner, metric: str
) -> None:
    recipe = by(metric, evaluate__batch_size=1, evaluate__show_images=3)
    assert another_runner.train(recipe) == "succeeded"
    for step in (2, 4, 6, 8, 10):

        def asked(events: list[dict[str, Any]], step: int = step) -> bool:
            last = events[-1]
            return (last["kind"], last["stage"]) == ("image", "segment") and last["step"] >= step

        assert runner.train(recipe, stop=asked) == "stopped"
    assert runner.train(recipe) == "succeeded"
    assert_same_best(runner, another_runner, 2 if metric == "loss" else 1)


def test_stopped_after_each_evaluation_it_goes_on_to_the_bit(runner: Runner, another_runner: Runner) -> None:
    recipe = by("loss", segment__ema=0.5, segment__optim=ADAMW)
    assert another_runner.train(recipe) == "succeeded"
    for step in (2, 3, 6, 9):
        assert runner.train(recipe, stop=at("segment", step)) == "stopped"
    assert runner.train(recipe) == "succeeded"
    assert_same_best(runner, another_runner)


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_newest_checkpoint_damaged_the_one_before_it_knows_its_best(runner: Runner, another_runner: Runner) -> None:
    recipe = by("loss", runtime__checkpoint_every=1)
    assert another_runner.train(recipe) == "succeeded"
    assert runner.train(recipe, stop=at("segment", 7)) == "stopped"
    newest, before = checkpoint.step_checkpoints(runner.run_dir, "segment")[:-3:-1]
    assert newest.best() is not None and before.best() is not None
    (newest.path / "model.safetensors").write_bytes(b"damaged")
    assert runner.train(recipe) == "succeeded"
    assert_equal_runs(runner, another_runner, ["segment"])
    assert best_files(runner) == best_files(another_runner)
    (warning,) = runner.kind("warning")
    assert "is damaged" in warning["values"]["text"] and "sought anew" not in warning["values"]["text"]


def test_best_checkpoint_that_is_gone_is_sought_anew_with_a_warning(runner: Runner) -> None:
    recipe = by("loss", segment__optim={"lr": 0.5}, segment__steps=40, runtime__keep_checkpoints=1)
    asked = {"runtime": recipe.runtime.model_copy(update={"checkpoint_every": 1})}
    recipe = recipe.model_copy(update=asked)

    def later(events: list[dict[str, Any]]) -> bool:
        """The newest checkpoint is not the best one."""
        steps = checkpoint.step_checkpoints(runner.run_dir, "segment")
        return len(steps) > 1 and steps[-1].best() != steps[-1].step

    assert runner.train(recipe, stop=later) == "stopped"
    lost = best_folder(runner.run_dir)
    shutil.rmtree(lost)
    with pytest.raises(CheckpointError, match="is not in its folder any more"):
        best_folder(runner.run_dir)
    assert runner.train(recipe) == "succeeded"
    (warning,) = runner.kind("warning")
    assert str(lost) in warning["values"]["text"] and "sought anew" in warning["values"]["text"]
    assert best_folder(runner.run_dir).name == "best"


# ---- two processes ---------------------------------------------------------------------------------------------------


def _bests(run_dir: Path) -> tuple[int, float, Any]:
    meta = checkpoint.read_meta(run_dir / "checkpoints/segment/final")
    return meta["best"]["step"], meta["best"]["value"], meta.get("stopped_early")


@torchrun
@pytest.mark.slow
@pytest.mark.parametrize("metric", ["miou", "loss"])
def test_two_processes_keep_the_best_and_stop_as_one_does(tmp_path: Path, metric: str) -> None:
    keys = {**SHARED, **ALONE, "segment__eval_every": 2, "segment__steps": 30, "segment__ema": 0.5}
    keys |= {"segment__keep_best": metric, "segment__patience": 2, "segment__optim": {"lr": 0.3}}
    recipe = tiny_recipe(**{**keys, "evaluate": {"batch_size": 2, "show_images": 0}})
    for processes in (1, 2):
        code, words = Ranks(recipe, tmp_path / str(processes), processes, FROZEN).finish()
        assert code == 0, words
    one, two = (_bests(tmp_path / str(processes)) for processes in (1, 2))
    assert two == (one[0], pytest.approx(one[1], rel=1e-4), one[2])
    assert one[2] is not None, "it stops early"
    assert checkpoint.damage(best_folder(tmp_path / "2")) == ""


@torchrun
@pytest.mark.slow
def test_two_processes_killed_go_on_to_the_same_best(tmp_path: Path) -> None:
    keys = {**SHARED, **ALONE, "segment__eval_every": 3, "segment__steps": 18, "segment__ema": 0.9}
    keys |= {"segment__keep_best": "loss", "segment__optim": ADAMW, "runtime__checkpoint_every": 4}
    recipe = tiny_recipe(**{**keys, "evaluate": {"batch_size": 2, "show_images": 0}})
    code, words = Ranks(recipe, tmp_path / "whole", 2, FROZEN).finish()
    assert code == 0, words
    victim = Runner(tmp_path / "killed")
    with Ranks(recipe, victim.run_dir, 2, FROZEN) as ranks:
        _until(lambda: bool(victim.kind("best")) and max(s for _, s in victim.losses()) >= 10, ranks)
    code, words = Ranks(recipe, victim.run_dir, 2, FROZEN).finish()
    assert code == 0, words
    assert_same_best(victim, Runner(tmp_path / "whole"))


def _until(there: Callable[[], bool], ranks: Ranks) -> None:
    until(lambda: not ranks.running or there(), "the step to be killed at")
    assert ranks.running


# ---- with other programs ---------------------------------------------------------------------------------------------


def test_checkpoint_of_before_there_was_a_best_goes_on_without_one(runner: Runner) -> None:
    """Its meta file has no word of it; the recipe cannot have asked for one."""
    recipe: Recipe = by("miou", segment__keep_best=None)
    assert runner.train(recipe, stop=at("segment", 5)) == "stopped"
    (file,) = (runner.run_dir / "checkpoints/segment").glob("step_*/meta.json")
    meta = json.loads(file.read_text())
    del meta["recipe"]["segment"]["keep_best"], meta["recipe"]["segment"]["patience"]
    del meta["recipe"]["evaluate"]["checkpoint"]
    file.write_text(json.dumps(meta))
    assert runner.train(recipe) == "succeeded"
    with pytest.raises(CheckpointError, match=r"keeps no best checkpoint: .* makes a run keep one"):
        best_folder(runner.run_dir)
