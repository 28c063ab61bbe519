"""A full disk, a real one: a small file system in memory that holds the data directory."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmtui.paths import Home
from tests.e2e.support import kill_everything, mmtui
from tests.e2e.terminals import progress
from tests.event_lines import event_lines
from tests.waiting import until

MEBIBYTES = 48
RUN = ("data.train=8", "data.val=4", "segment.batch_size=2", "segment.steps=100000", "segment.eval_every=0")
SETTINGS = ("runtime.threads=1", "runtime.checkpoint_every=20", "runtime.checkpoint_seconds=0.5", "model.width=0.5")
pytestmark = pytest.mark.e2e


@pytest.fixture
def small_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A data directory on a file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    options = ["-t", "tmpfs", "-o", f"size={MEBIBYTES}m", "tmpfs", str(tmp_path)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let tests mount a file system")
    home = Home(tmp_path / "h").create()
    monkeypatch.setenv("MMTUI_HOME", str(home.root))
    yield home
    kill_everything(home)
    subprocess.run(["umount", "-l", str(tmp_path)], check=False)


def fill(folder: Path) -> Path:
    """A file that takes every byte that is left."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    return ballast


def shown(home: Home) -> dict[str, object]:
    document = json.loads(mmtui(home, "show", "1", "--json").stdout)
    return dict(document.get("run", document))


def test_full_disk_stops_the_run_with_the_cause_and_nothing_is_lost(small_home: Home, tmp_path: Path) -> None:
    queued = mmtui(small_home, "run", "shapes_baseline", *RUN, *SETTINGS, "-q")
    assert queued.returncode == 0, queued.stderr
    checkpoints = small_home.run("1").root / "checkpoints" / "segment"
    until(lambda: any(checkpoints.glob("step_*/meta.json")), "a checkpoint")
    fill(tmp_path)
    until(lambda: shown(small_home)["state"] == "failed", "the run's end")
    listed = mmtui(small_home, "ls", "--all")
    assert listed.returncode == 0 and "failed" in listed.stdout
    reason = str(shown(small_home)["reason"])
    assert "disk is full" in reason and "free some space" in reason, reason
    assert any(checkpoints.glob("step_*/meta.json")), "earlier checkpoints are still there"

    (tmp_path / "ballast").unlink()
    before = progress(small_home)
    again = mmtui(small_home, "retry", "1")
    assert again.returncode == 0, again.stderr
    until(lambda: shown(small_home)["state"] == "running", "the run going on")
    until(lambda: progress(small_home) > before, "steps beyond those before")
    events = event_lines(small_home.run("1").events(2))
    (started,) = [event["values"] for event in events if event["kind"] == "run_started"]
    assert started["resumed_step"] > 0, "it went on from its checkpoint"


def test_full_disk_and_an_idle_supervisor_what_is_asked_for_is_written_until_the_reserve_is_spent(
    small_home: Home, tmp_path: Path
) -> None:
    assert mmtui(small_home, "run", "shapes_baseline", *RUN, "--hold", "-q").returncode == 0
    assert mmtui(small_home, "daemon", "start").returncode == 0
    until(small_home.reserve.exists, "the reserve")
    for verb in (("note", "1", "kept"), ("rm", "1"), ("restore", "1")):
        fill(tmp_path)
        done = mmtui(small_home, *verb)
        assert done.returncode == 0, done.stderr
    # Without a supervisor nobody makes room in the database's log.
    assert mmtui(small_home, "daemon", "stop").returncode == 0
    until(lambda: _refused(small_home, tmp_path), "the end of the reserve")
    removed = mmtui(small_home, "rm", "1")
    assert removed.returncode == 3 and "is full" in removed.stderr and "free some space" in removed.stderr, removed
    assert small_home.run("1").manifest.is_file() and not (small_home.trash / "1").exists()
    assert shown(small_home)["id"] in ("1", 1)

    (tmp_path / "ballast").unlink()
    assert mmtui(small_home, "rm", "1").returncode == 0
    assert (small_home.trash / "1").is_dir() and mmtui(small_home, "show", "1").returncode == 4


def _refused(home: Home, folder: Path) -> bool:
    """Fill the disk, ask for something, and see whether there was room for it."""
    fill(folder)
    return mmtui(home, "note", "1", "again").returncode == 3
