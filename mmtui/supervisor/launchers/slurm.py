"""Runs on an existing SLURM cluster: jobs are submitted through submitit, and watched by squeue.

Events and output are read from the run's folder, which all nodes must see.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtui.domain.slurm import LIVE, parameters, parse_queue
from mmtui.domain.text import printable
from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.services.code import FrozenCode
from mmtui.supervisor.launchers import local

JOB = Path(__file__).with_name("job.py")
LOOK_SECONDS = 2.0
PATIENCE_SECONDS = 15.0
LEAVE_SECONDS = 90
"""So long before the end of its time a job is told to checkpoint and leave."""
_NOT_FOR_SLURM = re.compile(r"[\x00-\x1f\x7f\\]")

logger = logging.getLogger(__name__)


class Replace:
    """Turns the task that submitit has started into the trainer's own process: submitit's answers to signals would
    end it."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)

    def __call__(self) -> None:
        os.execv(self.command[0], self.command)  # noqa: S606


class Cluster:
    """The jobs of one data directory."""

    def __init__(self, home: Home) -> None:
        self.home = home
        # Names tell jobs of different data directories apart, and a job from its run before its number is stored.
        self.prefix = f"mmtui-{hashlib.sha256(bytes(home.root)).hexdigest()[:8]}"
        self._jobs: dict[str, tuple[str, str, str]] | None = None
        self._looked_at = -LOOK_SECONDS

    def name(self, run_id: int, number: int) -> str:
        """What the job of an attempt is called."""
        return f"{self.prefix}-{run_id}-{number}"

    def submit(self, run_id: int, number: int, asked: Mapping[str, Any], code: FrozenCode) -> str:
        """Hand an attempt to SLURM; returns the job's number.

        Raises:
            MmtuiError: submitit is not installed, the data directory has a path that SLURM does not take, or SLURM
                refuses.
        """
        try:
            import submitit
        except ImportError:
            raise MmtuiError("runs on SLURM need submitit", "install it: pip install 'mmtui[slurm]'") from None
        require_plain(self.home.root)
        paths = self.home.run(str(run_id))
        folder = paths.attempt(number)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = [*local.held(code), *local.train(self.home, run_id, number, code.folder)]
        processes = int(asked.get("processes", 1))
        task = [sys.executable, str(JOB), str(paths.root), str(number), str(code.folder), str(processes), "--", *engine]
        try:
            executor = submitit.AutoExecutor(folder=folder / "slurm", cluster="slurm", slurm_python=sys.executable)
            executor.update_parameters(
                slurm_signal_delay_s=LEAVE_SECONDS,
                # The batch shell must outlive the SIGTERM that ends a job politely, or its step is killed with it.
                slurm_setup=["trap ':' TERM"],
                **parameters(asked, self.name(run_id, number)),
            )
            job = executor.submit(Replace(task))
        except (RuntimeError, OSError, submitit.core.utils.FailedJobError) as error:
            raise MmtuiError(
                f"SLURM refuses the run: {_last_line(error)}", "see: mmtui logs of the supervisor"
            ) from None
        self._looked_at = -LOOK_SECONDS
        return str(job.job_id)

    def look(self) -> dict[str, tuple[str, str, str]] | None:
        """{job: (name, state, reason)} of the user's jobs, with those that ended lately; None if SLURM is silent."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return self._jobs
        self._looked_at = time.monotonic()
        answer = _ask("squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%i|%j|%T|%r")
        self._jobs = None if answer is None else parse_queue(answer)
        return self._jobs

    def find(self, run_id: int, number: int) -> str:
        """The job of an attempt whose number was not stored; "" if there is none."""
        wanted = self.name(run_id, number)
        return next((job for job, (name, _, _) in (self.look() or {}).items() if name == wanted), "")

    def leave(self, job: str) -> None:
        """SIGTERM to every process of the job's steps: checkpoint and leave. Not to the batch shell."""
        _ask("scancel", "--signal=TERM", job)

    def kill(self, job: str) -> None:
        """End a job now, or take it out of the queue."""
        _ask("scancel", job)


def require_plain(folder: Path) -> None:
    """Make sure that SLURM can be given paths below a folder: a batch script names them, line by line.

    Raises:
        MmtuiError: it cannot.
    """
    text = str(folder)
    try:
        text.encode()
        plain = _NOT_FOR_SLURM.search(text) is None
    except UnicodeEncodeError:
        plain = False
    if not plain:
        raise MmtuiError(
            f"SLURM takes no data directory whose path holds a backslash, a control character or bytes that are no"
            f" UTF-8: {printable(text)}",
            "set MMTUI_HOME to another one and queue the run there",
        )


def is_live(state: str) -> bool:
    """Whether a job in this state is not over."""
    return state in LIVE


def _ask(*words: str) -> str | None:
    """What a SLURM command prints; None if it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.error("%s cannot be asked: %s", words[0], error)
        return None
    if done.returncode:
        logger.error("%s says: %s", words[0], done.stderr.strip()[-300:])
        return None
    return done.stdout


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else repr(error))
