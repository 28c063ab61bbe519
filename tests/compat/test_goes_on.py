"""Runs that commit cce7257 has left half done go on with today's engine, and with today's supervisor."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_recipe
from engine.mixmatch.window_cutters import opencv_version
from engine.resume import find_position
from mmtui.paths import Home
from mmtui.services import runs
from tests.compat.asking import COMMIT, FINISHED, KILLED, PAUSED
from tests.compat.conftest import stored
from tests.e2e.support import mmtui
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FIRST = 4
"""Losses that must be the old engine's. Later ones drift apart: another processor, or OpenCV, rounds otherwise."""


def engine(run_dir: Path) -> list[dict[str, Any]]:
    """Train a run's folder to its end; the events of this attempt."""
    command = [sys.executable, "-m", "engine", "train", str(run_dir / "recipe.yaml"), "--run-dir", str(run_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False, cwd=run_dir)
    assert done.returncode == 0, done.stderr
    last = max((run_dir / "attempts").iterdir())
    return [json.loads(line) for line in (last / "events.jsonl").read_text().splitlines()]


def losses(events: list[dict[str, Any]]) -> dict[str, float]:
    told = (event for event in events if event["kind"] == "metrics" and "loss" in event["values"])
    return {str(event["global_step"]): event["values"]["loss"] for event in told}


def checkpoint_of(home: Home, run_id: str) -> dict[str, Any]:
    """What the newest checkpoint of a run says of itself."""
    file = max(home.run(run_id).checkpoints.glob("*/step_*/meta.json"))
    return dict(json.loads(file.read_text()))


def test_engine_goes_on_from_old_checkpoints_to_the_end(opened: Home) -> None:
    ids = (PAUSED, KILLED)
    metas = [checkpoint_of(opened, run_id) for run_id in ids]
    with ThreadPoolExecutor(len(ids)) as pool:
        told = list(pool.map(lambda run_id: engine(opened.run(run_id).root), ids))
    for run_id, meta, events in zip(ids, metas, told, strict=True):
        (started,) = [event["values"] for event in events if event["kind"] == "run_started"]
        assert (started["resumed_stage"], started["resumed_global_step"]) == (meta["stage"], meta["step"]) > ("", 0)
        assert_first_losses(run_id, losses(events))
        # Heartbeats come where nothing else was written for a while: on a fast machine there is none.
        kinds = set(stored("continued.json")[run_id]["kinds"]) - {"heartbeat"}
        assert {event["kind"] for event in events} >= kinds
        assert (events[-1]["kind"], events[-1]["values"]["status"]) == ("run_finished", "succeeded")


def assert_first_losses(run_id: str, now: dict[str, float]) -> None:
    """All that were told are told, and those right behind the checkpoint are the same."""
    before = stored("continued.json")[run_id]["losses"]
    assert now.keys() >= before.keys() and len(before) > FIRST
    for step in sorted(before, key=int)[:FIRST]:
        assert now[step] == pytest.approx(before[step], rel=1e-3), (run_id, step)


def test_going_on_tells_what_is_not_as_it_was(opened: Home) -> None:
    """The old engine knew no OpenCV: where it is installed now, patches are cut by it."""
    recipe = load_recipe(opened.run(PAUSED).recipe, stored=True)
    found = find_position(recipe, opened.run(PAUSED).root).warnings
    told = [text for text in found if "without OpenCV" in text]
    assert len(told) == (1 if opencv_version() else 0), found


def test_supervisor_of_today_takes_old_runs_and_forks_further(opened: Home) -> None:
    for words in (("cancel", "12", "13", "15"), ("resume", PAUSED)):
        assert mmtui(opened, *words).returncode == 0, words
    forked = mmtui(opened, "run", "--from", f"{FINISHED}@25", "segment.optim.lr=0.03", "-q")
    assert (forked.returncode, forked.stdout) == (0, "17\n"), forked.stderr
    assert mmtui(opened, "queue", "open").returncode == 0
    ids = (PAUSED, "17")
    ended = ("succeeded", "failed", "cancelled", "interrupted")
    until(lambda: all(runs.get_run(opened, i).row.state in ended for i in ids), "the end of both runs")
    assert [runs.get_run(opened, run_id).row.state for run_id in ids] == ["succeeded"] * 2
    assert [len(runs.get_run(opened, run_id).attempts) for run_id in ids] == [2, 1]
    # Frozen then, trained with now: the code is the old one.
    assert runs.get_run(opened, PAUSED).code["commit"].startswith(COMMIT)
    assert_first_losses(PAUSED, {str(p.global_step): p.value for p in runs.points(opened, PAUSED, "loss")})
    parent = runs.get_run(opened, "17").parent
    assert parent is not None and (parent.run, parent.stage, parent.global_step) == (FINISHED, "segment", 25)
