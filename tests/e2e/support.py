"""The whole program: supervisors and trainers that do not outlive their test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import psutil

from mmtui.paths import Home
from mmtui.services import supervisors
from tests.waiting import PATIENCE

TINY = (
    "data.height=32",
    "data.width=32",
    "data.train=8",
    "data.val=4",
    "model.width=0.5",
    "model.head_channels=16",
    "match.images=4",
    "match.crop=32",
    "match.patch_size=[8,16]",
    "match.output_size=16",
    "match.steps=20",
    "segment.batch_size=4",
    "segment.crop=32",
    "segment.pixels=32",
    "runtime.threads=1",
    "runtime.log_every=2",
)
"""Overrides of shapes_mixmatch that make its steps take milliseconds."""


def mmtui(home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one command line."""
    command = [sys.executable, "-m", "mmtui", *words]
    environment = {**os.environ, "MMTUI_HOME": str(home.root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "a fault of mmtui" not in done.stderr, done.stderr  # that is what is said instead of a traceback
    return done


def wait_for_end(home: Home, *ids: str) -> None:
    """Wait until runs have succeeded."""
    done = mmtui(home, "wait", *ids, "--timeout", f"{PATIENCE - 10:g}")
    assert done.returncode == 0, (done.stdout, done.stderr)


def processes_of(home: Home) -> list[psutil.Process]:
    """Every process that serves, trains or shows this data directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line, environment = process.cmdline(), process.environ()
            mine = environment.get("MMTUI_HOME") == str(home.root) or any(str(home.root) in word for word in line)
            python = any("mmtui" in word or "engine" in word for word in line)
            if mine and python and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_everything(home: Home) -> None:
    """End the supervisor first, so that it starts nothing again."""
    pid, _ = supervisors.holder(home)
    if pid is not None and pid > 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in processes_of(home):
        with contextlib.suppress(psutil.Error):
            # As a word of its own: the temporary folders of pytest have it in their names.
            if "pytest" not in process.cmdline():
                process.kill()
