"""Checkpoints: whole or not there, checked before use, and only for the recipe they were made from."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from torch import nn

from engine import checkpoint
from engine.config import Recipe
from engine.errors import CheckpointError
from tests.crashpoints import KILL, end_at, steps_of
from tests.process_state import file_size_limit
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[3]


class Runner(Protocol):
    run_dir: Path

    def train(self, recipe: Recipe, stop: Any = ...) -> str: ...
    def kind(self, kind: str, stage: str | None = None) -> list[dict[str, Any]]: ...


def network(seed: int = 0) -> tuple[nn.Module, torch.optim.SGD]:
    """A small network after one update, so that its optimiser has a state."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.rand(2, 1, 5, 5)).square().sum().backward()
    optimiser.step()
    return module, optimiser


def save(run_dir: Path, step: int, keep: int = 2, seed: int = 0) -> Path:
    module, optimiser = network(seed)
    return checkpoint.save_step(run_dir, "match", step, module, optimiser, {"note": "here"}, keep=keep)


def test_save_step_then_load_gives_equal_tensors_and_momentum(tmp_path: Path) -> None:
    module, optimiser = network()
    checkpoint.save_step(tmp_path, "match", 7, module, optimiser, {})
    other, other_optimiser = network(seed=1)
    (found,) = checkpoint.step_checkpoints(tmp_path, "match")
    checkpoint.load_step(found, other, other_optimiser)
    assert found.step == 7
    for name, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    for before, after in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimiser.state[before]["momentum_buffer"], other_optimiser.state[after]["momentum_buffer"])


def test_save_step_meta_is_plain_json_with_digests(tmp_path: Path) -> None:
    path = save(tmp_path, 40)
    assert path == tmp_path / "checkpoints/match/step_00000040"
    meta = json.loads((path / "meta.json").read_text())
    assert (meta["format"], meta["stage"], meta["step"], meta["note"]) == (1, "match", 40, "here")
    assert set(meta["files"]) == {"model.safetensors", "optim.pt"}
    assert {file.name for file in path.iterdir()} == {"meta.json", *meta["files"]}


def test_save_step_keeps_the_newest_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (9, 10, 100_000_001):
        save(tmp_path, step)
    assert [c.step for c in checkpoint.step_checkpoints(tmp_path, "match")] == [10, 100_000_001]


def test_save_final_removes_the_step_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 5)
    checkpoint.save_final(tmp_path, "match", network()[0], {})
    assert checkpoint.final_checkpoint(tmp_path, "match") == tmp_path / "checkpoints/match/final"
    assert checkpoint.step_checkpoints(tmp_path, "match") == []


def test_step_checkpoints_half_written_and_foreign_folders_do_not_count(tmp_path: Path) -> None:
    good = save(tmp_path, 5)
    for name in ("step_00000009.writing", "step_9", "old_step_00000009", "step_00000009x"):
        shutil.copytree(good, good.with_name(name))
    good.with_name("step_00000008").mkdir()
    assert [c.step for c in checkpoint.step_checkpoints(tmp_path, "match")] == [5]
    checkpoint.clean(tmp_path)
    assert not good.with_name("step_00000009.writing").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "optim.pt", "meta.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_newest_sound_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path: Path, name: str, harm: str) -> None:
    save(tmp_path, 5)
    file = save(tmp_path, 6) / name
    content = bytearray(file.read_bytes())
    if harm == "flip":
        # The first byte of JSON is syntax; elsewhere one bit in the middle.
        position = 0 if name == "meta.json" else len(content) // 2
        content[position] ^= 1
        file.write_bytes(content)
    elif harm == "cut":
        file.write_bytes(content[:-10])
    else:
        file.unlink()
    found, problems = checkpoint.newest_sound(tmp_path, "match")
    assert found is not None and found.step == 5
    if not (name == "meta.json" and harm == "remove"):
        assert "step_00000006" in problems[0] and "damaged" in problems[0]


def test_load_step_of_another_network_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (found,) = checkpoint.step_checkpoints(tmp_path, "match")
    module = nn.Conv2d(1, 2, 3)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be loaded"):
        checkpoint.load_step(found, module, torch.optim.SGD(module.parameters(), lr=1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_load_of_a_checkpoint_that_is_not_finite_is_refused_and_changes_nothing(tmp_path: Path, value: float) -> None:
    """A whole file of a training that has diverged: its network answers class 0 everywhere, like one that works."""
    module, optimiser = network()
    with torch.no_grad():
        next(module.parameters()).view(-1)[1] = value
    path = checkpoint.save_step(tmp_path, "match", 5, module, optimiser, {})
    (found,) = checkpoint.step_checkpoints(tmp_path, "match")
    other, other_optimiser = network(seed=1)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"NaN or infinite values in 0\.weight: ") as told:
        checkpoint.load_step(found, other, other_optimiser)
    assert str(path) in str(told.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


def test_load_step_pickle_in_the_optimiser_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "owned"),))

    path = save(tmp_path, 5)
    torch.save({"state": Evil()}, path / "optim.pt")
    module, optimiser = network()
    with pytest.raises(CheckpointError, match=r"optim\.pt cannot be loaded"):
        checkpoint.load_step(checkpoint.Checkpoint(path, 5), module, optimiser)
    (path / "optim.pt").write_bytes(b"<html>")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_step(checkpoint.Checkpoint(path, 5), module, optimiser)
    assert "(it is no file of torch.save, or damaged); remove" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


# ---- killed while it removes ---------------------------------------------------------------------------------------


def test_checkpoint_half_removed_by_a_killed_process_is_none_and_is_cleared_away(tmp_path: Path) -> None:
    def remove() -> None:
        save(tmp_path, 6, keep=1)

    save(tmp_path, 5, keep=1)
    places = [number for number, step in enumerate(steps_of(remove, tmp_path), 1) if step.startswith("rmdir")]
    shutil.rmtree(tmp_path / "checkpoints")
    save(tmp_path, 5, keep=1)
    assert end_at(remove, tmp_path, KILL, places[-1], lambda step: step.startswith("rmdir")) == KILL
    folder = tmp_path / "checkpoints" / "match"
    assert [found.step for found in checkpoint.step_checkpoints(tmp_path, "match")] == [6]
    assert len(list(folder.iterdir())) == 2, "what was killed has left something"
    checkpoint.clean(tmp_path)
    assert [entry.name for entry in folder.iterdir()] == ["step_00000006"]


def test_steps_of_a_stage_that_had_just_finished_are_cleared_away_but_for_those_kept_for_good(tmp_path: Path) -> None:
    module, optimiser = network()
    for step in (4, 5):
        checkpoint.save_step(tmp_path, "match", step, module, optimiser, {}, keep_every=4)
    save(tmp_path, 1)
    kept = tmp_path / "aside"
    shutil.copytree(tmp_path / "checkpoints", kept)
    checkpoint.save_final(tmp_path, "match", module, {})
    shutil.copytree(kept, tmp_path / "checkpoints", dirs_exist_ok=True)  # as if it had died before it removed them
    checkpoint.clean(tmp_path)
    assert sorted(e.name for e in (tmp_path / "checkpoints/match").iterdir()) == ["final", "step_00000004"]


# ---- disk full -----------------------------------------------------------------------------------------------------


def test_save_step_write_that_ends_early_leaves_the_previous_checkpoint_alone(tmp_path: Path) -> None:
    good = save(tmp_path, 5)
    before = {file.name: file.read_bytes() for file in good.iterdir()}
    with file_size_limit(100), pytest.raises(CheckpointError, match="could not be written"):
        save(tmp_path, 6)
    assert {entry.name for entry in good.parent.iterdir()} == {good.name}
    assert {file.name: file.read_bytes() for file in good.iterdir()} == before


_FULL_DISK = """
import sys, pathlib, torch
from torch import nn
from engine import checkpoint
from engine.errors import CheckpointError
module = nn.Linear(200, 200)
optimiser = torch.optim.SGD(module.parameters(), lr=1)
run_dir = pathlib.Path(sys.argv[1])
checkpoint.save_step(run_dir, "match", 1, module, optimiser, {})
try:
    for step in range(2, 9):
        checkpoint.save_step(run_dir, "match", step, module, optimiser, {}, keep=9)
except CheckpointError as error:
    print(error)
    print(sorted(entry.name for entry in (run_dir / "checkpoints/match").iterdir()))
    print([checkpoint.damage(c.path) for c in checkpoint.step_checkpoints(run_dir, "match")])
"""


def test_save_step_on_a_disk_that_is_full_says_how_much_is_left(tmp_path: Path) -> None:
    mount = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=400k none "$0" && exec "$@"', str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small file system in a namespace of one's own")
    command = [sys.executable, "-c", _FULL_DISK, str(tmp_path)]
    done = subprocess.run([*mount, *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    error, names, problems = done.stdout.splitlines()
    assert error.startswith("the disk is full: a checkpoint of 0.2 MiB,") and str(tmp_path) in error
    assert "MiB are left there; free some space, then retry the run" in error
    assert names == "['step_00000001', 'step_00000002']"
    assert problems == "['', '']"


# ---- the recipe a run directory belongs to -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 3}, "seed=0"),
        ({"segment__optim": {"lr": 0.01}}, "segment.optim.lr=0.05"),
        ({"data__train": 6}, "data.train=5"),
        ({"match": None}, "match.steps=4"),
        ({"proxy__steps": 2}, "proxy.steps=3"),
    ],
)
def test_train_in_the_directory_of_another_recipe_is_refused(
    runner: Runner, make_recipe: Any, change: dict[str, Any], key: str
) -> None:
    assert runner.train(make_recipe(evaluate=None)) == "succeeded"
    with pytest.raises(CheckpointError, match="use another run directory") as caught:
        runner.train(make_recipe(evaluate=None, **change))
    assert key in str(caught.value)


def test_train_again_with_other_logging_or_data_folder_goes_on(runner: Runner, make_recipe: Any) -> None:
    assert runner.train(make_recipe(evaluate=None)) == "succeeded"
    again = make_recipe(evaluate={"show_images": 0}, runtime__log_every=2, segment__eval_every=0)
    assert runner.train(again) == "succeeded"
    assert [e["stage"] for e in runner.kind("stage_started")] == ["proxy", "match", "segment", "evaluate"]


def test_train_damaged_output_of_a_finished_stage_is_refused(runner: Runner, make_recipe: Any) -> None:
    runner.train(make_recipe(segment=None, evaluate=None))
    file = runner.run_dir / "checkpoints/match/final/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"match/final is damaged .*remove it"):
        runner.train(make_recipe())
