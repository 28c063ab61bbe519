"""Launchers that come too late, or at the same time: no run is trained twice at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from mmtui.supervisor import process
from tests.waiting import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Callable

    Workshop = Any

pytestmark = pytest.mark.e2e


def test_launcher_that_comes_too_late_does_not_train(
    workshop: Workshop, cancel: Callable[..., None], tmp_path: Path
) -> None:
    # It stops itself before its first line: a signal from here may come when it has written its pid already.
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n")
    stopping = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run_id = workshop.add(steps=1000)
    number = workshop.claim(run_id)
    paths = workshop.home.run(run_id)
    late = process.spawn(paths.root, number, [sys.executable, "-c", "import time; time.sleep(600)"], stopping)
    until(lambda: psutil.Process(late.pid).status() == psutil.STATUS_STOPPED, "the launcher to stop itself")
    assert not (paths.root / "trainer.lock").exists()
    cancel(run_id)  # a wish: the run is starting as far as anybody knows
    assert workshop.row(run_id).state == "starting"
    workshop.start()
    workshop.until_state(run_id, "cancelled")
    late.send_signal(signal.SIGCONT)
    assert late.wait(PATIENCE) == 75
    assert workshop.trainers() == []


def test_two_launchers_of_one_run_only_one_trains(workshop: Workshop) -> None:
    run_id = workshop.add(steps=1000)
    paths = workshop.home.run(run_id)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    first = process.spawn(paths.root, 1, command, os.environ)
    workshop.until((paths.attempt(1) / "pid").exists, "the first one has the lock")
    second = process.spawn(paths.root, 1, command, os.environ)
    assert second.wait(PATIENCE) == 75
    assert first.poll() is None
    assert not process.fence(paths.root)
    first.kill()
    first.wait()
    assert process.fence(paths.root)
