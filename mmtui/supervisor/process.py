"""Processes by identity: a pid alone may be somebody else's by now."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mmtui.services import launch
from mmtui.services.launch import identity
from mmtui.services.trainers import is_alive

LAUNCHER = Path(launch.__file__)
_NO_ATTEMPT = "none"


def fence(run_dir: Path) -> bool:
    """Rule out that a launcher which is still on its way begins after its attempt was judged.

    A launcher takes the run's lock before it looks which attempt is current; so under the lock we say that none is.

    Returns:
        False while some process holds the lock: a launcher about to write its pid, or what a trainer left behind.
    """
    try:
        lock = os.open(run_dir / "trainer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return True  # the run's folder is gone; nothing can begin in it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (run_dir / "attempt").write_text(_NO_ATTEMPT)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def end_leftovers(pid: int) -> None:
    """Kill what is left of the process group of a dead trainer, such as workers that hold the run's lock."""
    if identity(pid) is not None:
        return  # the number is somebody else's by now; as long as a group has it, the kernel gives it to nobody
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def spawn(
    run_dir: Path, attempt: int, arguments: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a trainer in a session of its own, its output into the attempt's log.

    Raises:
        OSError: the files or the process could not be made.
    """
    folder = run_dir / "attempts" / f"{attempt:03d}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (run_dir / "attempt").write_text(str(attempt))
    log = os.open(folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, str(LAUNCHER), str(run_dir), str(attempt), "--", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=run_dir,
            env=dict(environment),
            start_new_session=True,
            close_fds=True,
        )
    finally:
        os.close(log)


def signal_group(trainer_pid: int, known: str, number: signal.Signals) -> bool:
    """Signal the whole session of a trainer, if it is still the one we know."""
    if not is_alive(trainer_pid, known):
        return False
    try:
        os.killpg(trainer_pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
