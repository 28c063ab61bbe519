"""The best checkpoint with the real supervisor and trainers: killed again and again, forked from, exported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine import checkpoint
from engine.config.best import best_folder
from mmtui.paths import Home
from mmtui.services import runs
from tests.e2e.support import TINY, kill_everything, mmtui, wait_for_end
from tests.e2e.test_disk import fill, small_home  # noqa: F401 - a fixture
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
STAGES = tuple(word for word in TINY if not word.startswith("match."))
WORDS = (
    *STAGES,
    "segment.steps=400",
    "segment.eval_every=20",
    "segment.keep_best=loss",
    "segment.ema=0.99",
    "segment.optim.optimiser=adamw",
    "segment.optim.lr=0.003",
    "runtime.checkpoint_every=7",
    "runtime.log_every=1",
)


@pytest.fixture
def machine(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("MMTUI_CPU_SLOTS", "2")
    yield home
    kill_everything(home)


def shown(home: Home, run_id: str) -> dict[str, Any]:
    return dict(json.loads(mmtui(home, "show", run_id, "--json").stdout))


def kept(home: Home, run_id: str) -> dict[str, bytes]:
    folder = best_folder(home.run(run_id).root)
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "optim.pt")}


def kill_trainer_beyond(home: Home, run_id: str, step: int) -> None:
    """SIGKILL the trainer of the run once it has told of that step of the stage."""

    def trained() -> bool:
        (segment, _) = runs.get_run(home, run_id).stages
        return segment.step >= step

    until(trained, f"step {step}")
    before = runs.get_run(home, run_id).attempts
    assert before[-1].pid is not None
    with suppress(ProcessLookupError):
        os.kill(before[-1].pid, signal.SIGKILL)
    until(lambda: len(runs.get_run(home, run_id).attempts) > len(before), "the next attempt")


def test_adamw_ema_and_best_over_kills_are_those_of_the_twin_and_are_used(machine: Home, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        assert mmtui(machine, "run", "shapes_baseline", *WORDS, "--name", name, "-q").returncode == 0
    for step in (30, 120, 230):
        kill_trainer_beyond(machine, "2", step)
    wait_for_end(machine, "1", "2")
    whole, killed = (shown(machine, run_id) for run_id in ("1", "2"))
    assert len(killed["attempts"]) == 4 and len(whole["attempts"]) == 1
    assert whole["best"] == killed["best"] and whole["best"]["weights"] == "ema"
    assert kept(machine, "1") == kept(machine, "2")
    for metric in ("loss", "val_loss", "miou"):
        curves = [[(p.step, p.value) for p in runs.points(machine, run_id, metric)] for run_id in ("1", "2")]
        assert curves[0] == curves[1] and len(curves[0]) >= 20
    finals = [machine.run(run_id).checkpoints / "segment/final/model.safetensors" for run_id in ("1", "2")]
    assert finals[0].read_bytes() == finals[1].read_bytes()

    step = whole["best"]["step"]
    done = mmtui(machine, "run", "--from", "2@best", "segment.optim.lr=0.001", f"segment.steps={step + 20}", "-q")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    assert mmtui(machine, "run", "--from", "2", "evaluate.checkpoint=best", "-q").stdout == "4\n"
    wait_for_end(machine, "3", "4")
    child = shown(machine, "3")
    assert (child["parent"]["step"], child["best"]["step"]) == (step, step + 20)
    score = {p.step: p.value for p in runs.points(machine, "1", "miou") if p.stage == "segment"}[step]
    assert shown(machine, "4")["metrics"]["miou"] == pytest.approx(score)

    out = tmp_path / "net.safetensors"
    words = ("weights", "export", "--run-dir", f"{machine.run('2').root}@best", "--out", str(out))
    told = subprocess.run([sys.executable, "-m", "engine", *words], capture_output=True, timeout=PATIENCE, check=False)
    assert told.returncode == 0, told.stderr
    tensors = load_file(best_folder(machine.run("1").root) / "model.safetensors")
    for name, value in load_file(out).items():
        assert torch.equal(value, tensors[f"average.backbone.{name}"]), name


def test_full_disk_while_bests_are_written_loses_none(small_home: Home, tmp_path: Path) -> None:  # noqa: F811
    """The disk fills while the run trains; what was the best then still is, and the run goes on from where it was."""
    words = ("segment.steps=100000", "segment.eval_every=5", "segment.keep_best=loss", "model.width=0.5")
    assert mmtui(small_home, "run", "shapes_baseline", *STAGES, *words, "-q").returncode == 0
    until(lambda: shown(small_home, "1")["best"] is not None, "a best checkpoint")
    fill(tmp_path)
    until(lambda: shown(small_home, "1")["state"] == "failed", "the run's end")
    assert "disk is full" in str(shown(small_home, "1")["reason"])
    folder = best_folder(small_home.run("1").root)
    assert checkpoint.damage(folder) == ""
    (tmp_path / "ballast").unlink()
    assert mmtui(small_home, "retry", "1").returncode == 0
    until(lambda: shown(small_home, "1")["attempts"][-1]["resumed_stage"] == "segment", "its going on")
    assert shown(small_home, "1")["attempts"][1]["resumed_step"] >= int(folder.name.removeprefix("step_"))
    before = shown(small_home, "1")["stages"][0]["step"]
    until(lambda: shown(small_home, "1")["stages"][0]["step"] > before, "further steps")
