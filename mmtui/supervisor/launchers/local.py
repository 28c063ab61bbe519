"""Trainers on this machine: one process, or several under torchrun, bound to their places."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engine import own_code
from mmtui.paths import Home
from mmtui.services.code import FrozenCode
from mmtui.services.places import device_environment
from mmtui.services.trainers import SLOTS
from mmtui.supervisor import process


def start(
    home: Home, run_id: int, number: int, places: Sequence[str], code: FrozenCode, *, probe: bool
) -> subprocess.Popen[bytes]:
    """Start an attempt of a run.

    Args:
        places: GPUs or CPU slots it gets; several: one process each.
        code: what the trainer may load.
        probe: whether to measure first what the run needs.

    Raises:
        OSError: the files or the process could not be made.
    """
    paths = home.run(str(run_id))
    environment = {
        **os.environ,
        **device_environment(places),
        SLOTS: json.dumps(list(places)),
        # Else Python would look into the run's folder first, where files of a capsule may lie.
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "MMTUI_RUN_ID": str(run_id),
    }
    # Its own search path is no trainer's: what a trainer loads is frozen.
    environment.pop("PYTHONPATH", None)
    command = launcher(len(places), held(code), train(home, run_id, number, code.folder))
    if probe and (code.folder / "engine" / "probe.py").exists():
        command.append("--probe")
    return process.spawn(paths.root, number, command, environment)


def held(code: FrozenCode) -> list[str]:
    """The program that runs modules with this code alone, behind the interpreter (see ``engine.own_code``)."""
    return [own_code.__file__, str(code.folder), code.sha256]


def launcher(processes: int, program: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Command line that runs a Python module in so many processes.

    Args:
        program: what runs it with the right code; torchrun itself is run by it, too: other code is told of before
            anything has begun.
    """
    if processes < 2:
        return [sys.executable, *program, *arguments]
    # Standalone: the processes meet on a free port of this machine, so two runs do not get in each other's way.
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [sys.executable, *program, *torchrun, *program, *arguments]


def train(home: Home, run_id: int, number: int, code: Path) -> list[str]:
    """Command line of the engine for an attempt, behind the interpreter. Code frozen long ago knows fewer options.

    A run from elsewhere shares no outputs of stages: others would go on from what a stranger has made.
    """
    paths = home.run(str(run_id))
    arguments = ["-m", "engine", "train", "--recipe", str(paths.recipe), "--run-dir", str(paths.root)]
    may_share = (code / "engine" / "stage_cache.py").exists() and not paths.imported.exists()
    shared = ["--stage-cache", str(home.stage_cache)] if may_share else []
    return [*arguments, "--attempt", str(number), *shared]
