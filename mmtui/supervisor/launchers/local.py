"""Trainers on this machine: one process, or several under torchrun, bound to their places."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmtui.paths import Home
from mmtui.services.places import device_environment
from mmtui.services.trainers import SLOTS
from mmtui.supervisor import process


def start(
    home: Home, run_id: int, number: int, places: Sequence[str], code: Path, *, probe: bool
) -> subprocess.Popen[bytes]:
    """Start an attempt of a run.

    Args:
        places: GPUs or CPU slots it gets; several: one process each.
        code: folder of the frozen engine.
        probe: whether to measure first what the run needs.

    Raises:
        OSError: the files or the process could not be made.
    """
    paths = home.run(str(run_id))
    environment = {
        **os.environ,
        **device_environment(places),
        SLOTS: json.dumps(list(places)),
        "PYTHONPATH": str(code),
        # Else Python would look into the run's folder first, where files of a capsule may lie.
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "MMTUI_RUN_ID": str(run_id),
    }
    command = [*launcher(len(places)), *train(home, run_id, number, code)]
    if probe and (code / "engine" / "probe.py").exists():
        command.append("--probe")
    return process.spawn(paths.root, number, command, environment)


def launcher(processes: int) -> list[str]:
    """What runs Python modules in so many processes."""
    if processes < 2:
        return [sys.executable]
    # Standalone: the processes meet on a free port of this machine, so two runs do not get in each other's way.
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]


def train(home: Home, run_id: int, number: int, code: Path) -> list[str]:
    """Command line of the engine for an attempt, behind the interpreter. Code frozen long ago knows fewer options.

    A run from elsewhere shares no outputs of stages: others would go on from what a stranger has made.
    """
    paths = home.run(str(run_id))
    arguments = ["-m", "engine", "train", "--recipe", str(paths.recipe), "--run-dir", str(paths.root)]
    may_share = (code / "engine" / "stage_cache.py").exists() and not paths.imported.exists()
    shared = ["--stage-cache", str(home.stage_cache)] if may_share else []
    return [*arguments, "--attempt", str(number), *shared]
