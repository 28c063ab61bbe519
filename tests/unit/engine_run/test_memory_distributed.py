"""Two processes under torchrun of which one lacks memory: both drop the step, halve their batches and go on as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import Recipe, dump_recipe
from tests.unit.engine_run.conftest import ROOT, tiny_recipe
from tests.unit.engine_run.processes import Ranks
from tests.unit.engine_run.test_distributed import SHARED, events, losses, weights
from tests.waiting import PATIENCE

pytestmark = pytest.mark.xdist_group("torchrun")
WIDE: dict[str, Any] = {
    **SHARED,
    "runtime__exchange": "retry",
    "runtime__halve_on_oom": "always",
    "data__train": 16,
    "proxy__batch_size": 32,
    "match__images": 4,
    "match__steps": 3,
    "segment__batch_size": 16,
    "segment__steps": 3,
}
APART = {"match__graph_scope": "local", "segment__accumulate": 2}
"""Nothing is exchanged before the last backward pass of a step."""
TOGETHER = {"match__graph_scope": "global", "match__memory": 2, "segment__accumulate": 1}
"""Embeddings are gathered, and pixels counted, in the middle of a step."""


def train(recipe: Recipe, run_dir: Path, **how: Any) -> tuple[int, str, Path]:
    """Exit code, stderr and folder of two processes, one of which has little memory; neither ends the other."""
    try:
        code, told = Ranks(recipe, run_dir, 2, wanting(**how)).finish()
    except TimeoutError:
        pytest.fail("the processes wait for each other")
    return code, told, run_dir


def train_under_torchrun(recipe: Recipe, run_dir: Path, **how: Any) -> tuple[int, str, Path]:
    """The same by torchrun, which ends all when one has failed."""
    run_dir.mkdir(parents=True)
    (run_dir / "recipe.yaml").write_text(dump_recipe(recipe))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "tests.unit.engine_run.lacking", wanting(**how)]
    command += ["train", "--recipe", str(run_dir / "recipe.yaml"), "--run-dir", str(run_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=run_dir, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        _, told = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.fail("the processes wait for each other")
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return process.returncode, told, run_dir


def wanting(**how: Any) -> str:
    """What ``lacking`` is told."""
    return json.dumps({"stages": {}, "ranks": [1], "where": "forward", "frozen": True, **how})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a training with enough memory, made once."""
    made: dict[str, Path] = {}

    def ready(name: str) -> Path:
        if name not in made:
            changes = APART if name == "apart" else TOGETHER
            recipe = tiny_recipe(**{**WIDE, **changes, "proxy": None})
            code, told, made[name] = train(recipe, tmp_path_factory.mktemp(name) / "run", stages=NO_LIMIT)
            assert code == 0, told
        return made[name]

    return ready


NO_LIMIT = {"match": 1000, "segment": 1000}


def steps_of(run_dir: Path, rank: int) -> list[list[str]]:
    return [line.split() for line in (run_dir / f"rank_{rank}.txt").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "ranks", "where"),
    [("apart", [1], "backward"), ("together", [0], "forward")],
)
def test_memory_that_one_process_lacks_makes_both_compute_the_same_in_portions(
    tmp_path: Path, whole: Callable[[str], Path], name: str, ranks: list[int], where: str
) -> None:
    changes = APART if name == "apart" else TOGETHER
    recipe = tiny_recipe(**{**WIDE, **changes, "proxy": None})
    # 16 patches a graph; 16 images a batch, of which each process has a half where batches are shared.
    limits = {"match": 4, "segment": 4}
    code, told, run_dir = train(recipe, tmp_path / "run", stages=limits, ranks=ranks, where=where)
    assert code == 0, told
    first, second = (steps_of(run_dir, rank) for rank in range(2))
    assert first == second, "both have the same parameters and portions after every step"
    segment_splits = "4" if name == "apart" else "2"
    assert {(stage, splits) for stage, _, splits, _ in first} == {("match", "4"), ("segment", segment_splits)}
    reference = whole(name)
    for stage in ("match", "segment"):
        expected = losses(reference, stage)
        assert len(expected) == 3
        assert losses(run_dir, stage) == pytest.approx(expected, rel=1e-4), stage
    for part, value in weights(reference, "segment").items():
        torch.testing.assert_close(weights(run_dir, "segment")[part], value, rtol=2e-3, atol=2e-5, msg=part)
    texts = [event["values"]["text"] for event in events(run_dir, "warning")]
    assert [f"process {ranks[0]} (of 2)" in text for text in texts] == [True] * len(texts)
    assert [text.split("stage ")[1].split(":")[0] for text in texts].count("match") == 2
    assert not events(reference, "warning")


def test_memory_lacking_for_the_data_is_told_before_anything_is_exchanged(
    tmp_path: Path, whole: Callable[[str], Path]
) -> None:
    recipe = tiny_recipe(**{**WIDE, **TOGETHER, "proxy": None})
    code, told, run_dir = train(recipe, tmp_path / "run", stages=NO_LIMIT, where="data")
    assert code == 0, told
    first, second = (steps_of(run_dir, rank) for rank in range(2))
    assert first == second and {splits for _, _, splits, _ in first} == {"2"}
    for stage in ("match", "segment"):
        assert losses(run_dir, stage) == pytest.approx(losses(whole("together"), stage), rel=1e-4), stage


@pytest.mark.parametrize(("where", "ranks"), [("backward", [0, 1])])
def test_proxy_task_goes_on_in_portions_that_both_processes_agree_on(
    tmp_path: Path, where: str, ranks: list[int]
) -> None:
    recipe = tiny_recipe(**{**WIDE, "match": None, "segment": None})
    code, told, run_dir = train(recipe, tmp_path / "run", stages={"proxy": 4}, ranks=ranks, where=where, frozen=False)
    assert code == 0, told
    first, second = (steps_of(run_dir, rank) for rank in range(2))
    assert first == second and {splits for _, _, splits, _ in first} == {"4"}
    warnings = events(run_dir, "warning")
    assert [event["values"]["splits"] for event in warnings] == [2, 4]
    named = " and ".join(str(rank) for rank in ranks)
    assert all(f"process {named} (of 2)" in event["values"]["text"] for event in warnings)


@pytest.mark.parametrize(("halve", "where"), [(True, "backward"), (False, "forward")])
def test_memory_for_no_portion_ends_both_processes_with_the_keys_to_lower(
    tmp_path: Path, halve: bool, where: str
) -> None:
    recipe = tiny_recipe(**{**WIDE, "proxy": None, "match": None, "runtime__halve_on_oom": halve})
    code, told, run_dir = train(recipe, tmp_path / "run", stages={"segment": 1}, where=where)
    assert code == 1
    assert (
        told.count("error: this machine has too little memory for a step of stage segment: lower segment.batch_size")
        == 2
    )
    (error,) = events(run_dir, "error")
    assert error["values"]["type"] == "OutOfMemoryError"
    assert len(events(run_dir, "warning")) == (2 if halve else 0)


def test_memory_lacking_in_the_update_ends_both_processes(tmp_path: Path) -> None:
    """An update that has begun cannot be done again; nobody waits for ever for the process that failed."""
    recipe = tiny_recipe(**{**WIDE, "proxy": None, "match": None})
    code, told, _ = train_under_torchrun(recipe, tmp_path / "run", stages={"segment": 1000}, where="update")
    assert code == 1
    assert "error: this machine has too little memory for a step of stage segment: lower segment.batch_size" in told


def test_memory_under_distributed_data_parallel_ends_the_run(tmp_path: Path) -> None:
    """Its exchange cannot be finished by a process that failed: torchrun ends the others."""
    recipe = tiny_recipe(**{**WIDE, "proxy": None, "match": None, "runtime__exchange": "ddp"})
    code, told, run_dir = train_under_torchrun(recipe, tmp_path / "run", stages={"segment": 1}, where="backward")
    assert code == 1
    assert "error: this machine has too little memory for a step of stage segment: lower segment.batch_size" in told
    assert not events(run_dir, "warning"), "nothing was halved"
