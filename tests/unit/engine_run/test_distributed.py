"""Two processes over gloo, by torchrun or as it starts them: one training, exact resume, one writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engine.config import Recipe, dump_recipe
from engine.events import attempt_folder
from tests.event_lines import event_lines
from tests.unit.engine_run.conftest import ROOT, TINY, Runner, tiny_recipe
from tests.unit.engine_run.processes import Ranks
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.xdist_group("torchrun")
SHARED: dict[str, Any] = {
    "match__graphs": 2,
    "segment__accumulate": 2,
    "segment__eval_every": 0,
    "model__dropout": 0.0,  # its random numbers differ from process to process
    "evaluate": None,
}


def train(recipe: Recipe, run_dir: Path, processes: int) -> None:
    code, told = Ranks(recipe, run_dir, processes).finish()
    assert code == 0, told


def train_by_torchrun(recipe: Recipe, run_dir: Path, processes: int, program: Sequence[str] = ("-m", "engine")) -> None:
    run_dir.mkdir(parents=True)
    (run_dir / "recipe.yaml").write_text(dump_recipe(recipe))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += [*program, "train", "--recipe", str(run_dir / "recipe.yaml"), "--run-dir", str(run_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=run_dir, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr


def events(run_dir: Path, kind: str, attempt: int = 1) -> list[dict[str, Any]]:
    path = attempt_folder(run_dir, attempt) / "events.jsonl"
    return [event for event in event_lines(path) if event["kind"] == kind]


def metrics(run_dir: Path, attempt: int = 1) -> list[dict[str, Any]]:
    return events(run_dir, "metrics", attempt)


def losses(run_dir: Path, stage: str) -> list[float]:
    return [event["values"]["loss"] for event in metrics(run_dir) if event["stage"] == stage]


def weights(run_dir: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "checkpoints" / stage / "final" / "model.safetensors")


def assert_equal_graphs(one: list[dict[str, Any]], two: list[dict[str, Any]], nodes: int = 24) -> None:
    """What is told of graphs does not depend on how many processes computed them; distances are rounded sums."""
    assert [event["step"] for event in one] == [event["step"] for event in two] != []
    for first, second in zip((event["values"] for event in one), (event["values"] for event in two), strict=True):
        assert first.keys() == second.keys() and first["nodes"] == nodes
        for name, value in first.items():
            if name.endswith("_hist"):
                assert second[name] == pytest.approx(value, abs=1), name
            else:
                rounded = name.startswith(("d_", "active"))
                assert second[name] == (pytest.approx(value, rel=1e-3) if rounded else value), name


@pytest.mark.parametrize(
    ("scope", "memory", "exchange", "train_two"),
    [("local", 0, "ddp", train_by_torchrun), ("global", 2, "retry", train)],
)
def test_two_processes_train_as_one_does_on_the_joined_batch(
    tmp_path: Path, scope: str, memory: int, exchange: str, train_two: Callable[[Recipe, Path, int], None]
) -> None:
    how = {"match__graph_scope": scope, "match__memory": memory, "runtime__exchange": exchange}
    recipe = tiny_recipe(**SHARED, proxy=None, **how)
    assert Runner(tmp_path / "1").train(recipe) == "succeeded"
    train_two(recipe, tmp_path / "2", 2)
    for stage in ("match", "segment"):
        one, two = (losses(tmp_path / str(processes), stage) for processes in (1, 2))
        assert len(one) == len(two) == getattr(recipe, stage).steps
        assert two == pytest.approx(one, rel=2e-4), stage
    assert_equal_graphs(*(events(tmp_path / str(processes), "graph") for processes in (1, 2)))
    one_weights, two_weights = (weights(tmp_path / str(processes), "segment") for processes in (1, 2))
    for name, value in one_weights.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(two_weights[name], value, rtol=2e-3, atol=2e-4, msg=name)
    (began,) = events(tmp_path / "2", "run_started")
    assert began["values"]["processes"] == 2


AT_THE_END = """
import atexit, os, pathlib, runpy, sys

def told():
    names = [(task / "comm").read_text().strip() for task in pathlib.Path("/proc/self/task").iterdir()]
    pathlib.Path(f"taken_down_{os.environ['RANK']}").write_text(" ".join(names))

atexit.register(told)
runpy.run_module("engine", run_name="__main__", alter_sys=True)
"""


def test_python_is_not_taken_down_under_threads_of_the_group(tmp_path: Path) -> None:
    """They outlive it where DDP was used; one that was late aborted the process (see ``engine.__main__._leave``)."""
    (tmp_path / "program.py").write_text(AT_THE_END)
    recipe = tiny_recipe(**SHARED, proxy=None, runtime__exchange="ddp")
    train_by_torchrun(recipe, tmp_path / "run", 2, [str(tmp_path / "program.py")])
    (last,) = events(tmp_path / "run", "run_finished")
    assert last["values"]["status"] == "succeeded"
    assert [file.read_text() for file in (tmp_path / "run").glob("taken_down_*") if "gloo" in file.read_text()] == []


def stopped_on_the_way(recipe: Recipe, run_dir: Path, attempt: int, stage: str, step: int) -> None:
    """Two processes that are told to leave once they have logged that step of that stage."""
    path = attempt_folder(run_dir, attempt) / "events.jsonl"

    def there() -> bool:
        assert processes.running, f"it did not come to step {step} of {stage}"
        steps = metrics(run_dir, attempt) if path.exists() else []
        return any(event["stage"] == stage and event["step"] >= step for event in steps)

    with Ranks(recipe, run_dir, 2) as processes:
        until(there, f"step {step} of {stage}")
        processes.send_signal(signal.SIGTERM)
        processes.finish()
    assert not (run_dir / "checkpoints" / stage / "final").exists(), "it was stopped on the way"


@pytest.mark.slow
def test_two_processes_stopped_and_started_again_come_to_the_same_bits(tmp_path: Path) -> None:
    """DenseCL has queues and a network of keys beside what is trained."""
    contrast = {"kind": "densecl", "queue": 7, "projection": 6, "key_momentum": 0.9, "steps": 50}
    changes = {**SHARED, "proxy": {**TINY["proxy"], **contrast}, "match": None, "segment__steps": 50}
    recipe = tiny_recipe(**changes, runtime__checkpoint_every=7)
    train(recipe, tmp_path / "whole", 2)
    stopped_on_the_way(recipe, tmp_path / "cut", 1, "proxy", 9)
    stopped_on_the_way(recipe, tmp_path / "cut", 2, "segment", 9)
    train(recipe, tmp_path / "cut", 2)
    for attempt in (2, 3):
        (began,) = events(tmp_path / "cut", "run_started", attempt)
        assert began["values"]["resumed_step"] >= 7
    for stage in ("proxy", "segment"):
        whole, cut = weights(tmp_path / "whole", stage), weights(tmp_path / "cut", stage)
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[name], cut[name]) for name in whole), stage


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe(**SHARED, proxy=None, match__steps=1, segment__steps=1)
    assert Runner(tmp_path / "run").train(recipe) == "succeeded"
    longer = tiny_recipe(**SHARED, proxy=None, match__steps=1, segment__steps=2)
    (tmp_path / "run" / "checkpoints" / "segment" / "final").rename(tmp_path / "put_away")
    code, told = Ranks(longer, tmp_path / "run", 2).finish()
    assert code != 0
    assert "was made by 1 processes, now there are 2" in told and "torchrun --nproc_per_node 1" in told


def test_two_processes_share_out_the_evaluation_and_count_every_pixel_once(tmp_path: Path) -> None:
    changes = {**SHARED, "evaluate": {"batch_size": 2, "show_images": 2}, "data__val": 5, "segment__steps": 2}
    recipe = tiny_recipe(**changes, proxy=None, match=None)
    train(recipe, tmp_path / "run", 2)
    (confusion,) = [event["values"] for event in events(tmp_path / "run", "confusion")]
    counted = torch.zeros(9, 9, dtype=torch.int64)
    files = sorted((tmp_path / "run" / "predictions").glob("*.png"))
    assert len(files) == confusion["images"] == 5
    for file in files:
        prediction, truth = (np.asarray(Image.open(path)) for path in (file, file.parent / "truth" / file.name))
        for t, p in zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True):
            if t != 255:
                counted[t, p] += 1
    assert confusion["matrix"] == counted.tolist()
    assert len(events(tmp_path / "run", "image")) == 2
