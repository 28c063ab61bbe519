"""Two processes over gloo, started by torchrun: the same training as one process, exact resume, one writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from engine.config import Recipe, dump_recipe
from engine.events import attempt_folder, read_events
from tests.unit.engine_run.conftest import ROOT, tiny_recipe

pytestmark = pytest.mark.xdist_group("e2e")
SHARED: dict[str, Any] = {
    "match__graphs": 2,
    "segment__accumulate": 2,
    "segment__eval_every": 0,
    "model__dropout": 0.0,  # its random numbers differ from process to process
    "evaluate": None,
}


def start(recipe: Recipe, run_dir: Path, processes: int) -> subprocess.Popen[str]:
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "recipe.yaml").write_text(dump_recipe(recipe))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += ["-m", "engine", "train", "--recipe", str(run_dir / "recipe.yaml"), "--run-dir", str(run_dir)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=run_dir, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        _, told = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            process.kill()
    return process.returncode, told


def train(recipe: Recipe, run_dir: Path, processes: int) -> None:
    code, told = finish(start(recipe, run_dir, processes))
    assert code == 0, told


def events(run_dir: Path, kind: str, attempt: int = 1) -> list[dict[str, Any]]:
    path = attempt_folder(run_dir, attempt) / "events.jsonl"
    return [event for _, event in read_events(path) if event is not None and event["kind"] == kind]


def losses(run_dir: Path, stage: str) -> list[float]:
    return [event["values"]["loss"] for event in events(run_dir, "metrics") if event["stage"] == stage]


def weights(run_dir: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "checkpoints" / stage / "final" / "model.safetensors")


@pytest.mark.parametrize(
    ("scope", "memory", "exchange"),
    [("local", 0, "ddp"), ("global", 0, "ddp"), ("global", 2, "ddp"), ("global", 2, "retry")],
)
def test_two_processes_train_as_one_does_on_the_joined_batch(
    tmp_path: Path, scope: str, memory: int, exchange: str
) -> None:
    how = {"match__graph_scope": scope, "match__memory": memory, "runtime__exchange": exchange}
    recipe = tiny_recipe(**SHARED, proxy=None, **how)
    for processes in (1, 2):
        train(recipe, tmp_path / str(processes), processes)
    for stage in ("match", "segment"):
        one, two = (losses(tmp_path / str(processes), stage) for processes in (1, 2))
        assert len(one) == len(two) == getattr(recipe, stage).steps
        assert two == pytest.approx(one, rel=2e-4), stage
    one_weights, two_weights = (weights(tmp_path / str(processes), "segment") for processes in (1, 2))
    for name, value in one_weights.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(two_weights[name], value, rtol=2e-3, atol=2e-4, msg=name)
    (began,) = events(tmp_path / "2", "run_started")
    assert began["values"]["processes"] == 2


def test_two_processes_stopped_and_started_again_come_to_the_same_bits(tmp_path: Path) -> None:
    recipe = tiny_recipe(**{**SHARED, "segment__steps": 60, "runtime__checkpoint_every": 7}, match=None, proxy__steps=2)
    train(recipe, tmp_path / "whole", 2)
    process = start(recipe, tmp_path / "cut", 2)
    deadline = time.monotonic() + 60
    path = attempt_folder(tmp_path / "cut", 1) / "events.jsonl"
    while not path.exists() or len(losses(tmp_path / "cut", "segment")) < 9:
        assert time.monotonic() < deadline and process.poll() is None, "it did not come to step 9 of segment"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert len(losses(tmp_path / "cut", "segment")) < 60, "it was stopped on the way"
    train(recipe, tmp_path / "cut", 2)
    (began,) = events(tmp_path / "cut", "run_started", attempt=2)
    assert began["values"]["resumed_step"] >= 7
    whole, cut = weights(tmp_path / "whole", "segment"), weights(tmp_path / "cut", "segment")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    recipe = tiny_recipe(**SHARED, proxy=None, match__steps=1, segment__steps=1)
    train(recipe, tmp_path / "run", 1)
    longer = tiny_recipe(**SHARED, proxy=None, match__steps=1, segment__steps=2)
    (tmp_path / "run" / "checkpoints" / "segment" / "final").rename(tmp_path / "put_away")
    code, told = finish(start(longer, tmp_path / "run", 2))
    assert code != 0
    assert "was made by 1 processes, now there are 2" in told and "torchrun --nproc_per_node 1" in told


def test_batches_that_cannot_be_shared_out_are_refused_in_one_sentence(tmp_path: Path) -> None:
    recipe = tiny_recipe(proxy=None, match=None, segment__batch_size=3, evaluate=None, segment__eval_every=0)
    code, told = finish(start(recipe, tmp_path / "run", 2))
    assert code != 0
    assert "segment.batch_size or segment.accumulate of 3 cannot be shared out over 2 processes" in told


def test_a_memory_for_each_process_is_refused_as_a_checkpoint_holds_one(tmp_path: Path) -> None:
    recipe = tiny_recipe(**SHARED, proxy=None, segment=None, match__memory=2)
    code, told = finish(start(recipe, tmp_path / "run", 2))
    assert code != 0
    assert "match.memory on several processes needs match.graph_scope=global" in told


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
