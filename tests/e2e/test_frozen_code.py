"""What was queued is what trains, wherever the data directory lies and whatever becomes of it and of the engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmtui.paths import Home
from mmtui.services import runs, supervisors
from tests.e2e.support import TINY, kill_everything, wait_for_end
from tests.event_lines import event_lines
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
NAMES = (b"a:b c\n50%d $HOME `id` q'u\"o \\x ?#&", b"h\xff\xe9")


@pytest.fixture
def homes() -> Iterator[list[Home]]:
    """Data directories whose processes end with the test."""
    made: list[Home] = []
    yield made
    for home in made:
        kill_everything(home)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A copy of the program that is installed, to be changed."""
    for name in ("engine", "mmtui", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / "site" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "site"


def installed(site: Path, home: Home, *words: str) -> str:
    """Run a command line of the copy, in an environment where it is the one that is installed."""
    environment = {**os.environ, "MMTUI_HOME": str(home.root), "PYTHONPATH": str(site), "MMTUI_CPU_SLOTS": "2"}
    command = [sys.executable, "-P", "-m", "mmtui", *words]
    done = subprocess.run(command, env=environment, cwd=site.parent, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout.decode()


def started(home: Home, run_id: str, number: int = 1) -> dict[str, Any]:
    """What an attempt has said when it began."""
    events = event_lines(home.run(run_id).events(number))
    return next(dict(event["values"]) for event in events if event["kind"] == "run_started")


@pytest.mark.parametrize("name", NAMES)
def test_frozen_code_trains_in_a_home_of_any_name_after_the_engine_has_changed(
    tmp_path: Path, site: Path, homes: list[Home], name: bytes
) -> None:
    """One process, and two under torchrun; the engine that is installed could not even be loaded."""
    home = Home(tmp_path / os.fsdecode(name) / "data")
    homes.append(home)
    tiny = (*TINY, "match.graphs=2", "segment.steps=4", "match.steps=4", "runtime.reuse_stages=false")
    words = ("run", "shapes_mixmatch", *tiny, "runtime.device=cpu", "--hold", "-q")
    ids = [installed(site, home, *words).strip(), installed(site, home, *words, "--gpus", "2").strip()]
    for file in ("__main__.py", "loop.py"):
        (site / "engine" / file).write_text("raise SystemExit('the engine that was installed later')\n")
    installed(site, home, "release", *ids)
    installed(site, home, "wait", *ids, "--timeout", f"{PATIENCE - 10:g}")
    for run_id in ids:
        found = json.loads(installed(site, home, "show", run_id, "--json"))
        assert (found["state"], found["code"]["proof"]) == ("succeeded", "proven")
        assert [attempt["code"] for attempt in found["attempts"]] == ["proven"]
        assert started(home, run_id)["code"] == {"sha256": found["code"]["sha256"], "held": True}
        assert ", proven:" in installed(site, home, "show", run_id)
    assert started(home, ids[1])["processes"] == 2


def test_home_that_is_renamed_under_a_run_ends_it_with_a_sentence_and_it_goes_on_from_its_checkpoint(
    tmp_path: Path, homes: list[Home], site: Path
) -> None:
    home, moved = Home(tmp_path / "home"), Home(tmp_path / "moved")
    homes += [home, moved]
    options = ("segment.steps=400", "segment.eval_every=400", "runtime.checkpoint_every=10", "runtime.device=cpu")
    run_id = installed(site, home, "run", "shapes_mixmatch", *TINY, *options, "-q").strip()
    events = home.run(run_id).events(1)
    until(lambda: events.exists() and '"path":"checkpoints/segment' in events.read_text(), "a checkpoint")
    pid = int((home.run(run_id).attempt(1) / "pid").read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)
    home.root.rename(moved.root)
    os.kill(pid, signal.SIGCONT)
    events = moved.run(run_id).events(1)
    until(lambda: '"kind":"run_finished"' in events.read_text(), "the end of the trainer")
    until(lambda: not Path(f"/proc/{pid}").exists(), "the end of its process")
    assert "was moved, deleted or replaced while it trained" in events.read_text()
    assert not home.root.exists(), "a second folder would hide the checkpoints of the first"
    moved.root.rename(home.root)
    supervisors.ensure(home)
    until(lambda: runs.get_run(home, run_id).row.state == "failed", "what became of it")
    assert "put it back and retry the run" in runs.get_run(home, run_id).row.reason
    installed(site, home, "retry", run_id)
    wait_for_end(home, run_id)
    last = runs.get_run(home, run_id).attempts[-1]
    assert (last.number, last.resumed_stage) == (2, "segment") and last.resumed_step >= 10


def test_code_that_was_changed_between_check_and_start_ends_the_run_with_the_sentence(
    tmp_path: Path, homes: list[Home], site: Path
) -> None:
    """The supervisor looks at what lies on disk, the trainer at what it loads. Here a program stands in for Python that
    changes the code in between."""
    home = Home(tmp_path / "home")
    homes.append(home)
    launch = site / "mmtui" / "services" / "launch.py"
    body = launch.read_text().replace("return os.execv(", "CHANGE\n    return os.execv(")
    change = "(run_dir.parents[1] / 'code' / command[2].rpartition('/')[2] / 'engine' / 'new.py').touch()"
    launch.write_text(body.replace("CHANGE", change))
    one = installed(site, home, "run", "shapes_smoke", "-q").strip()
    until(lambda: runs.get_run(home, one).row.state == "failed", "its end", home.supervisor_log.read_text)
    found = runs.get_run(home, one)
    assert found.row.reason.startswith("the trainer loaded other code (SHA-256 "), found.row.reason
    assert found.row.reason.endswith(f") than what was frozen ({found.code['sha256']})")
