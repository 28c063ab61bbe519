"""Processes by identity: a pid alone may be somebody else's by now."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")
_DEAD = frozenset("ZX")


@dataclass(frozen=True)
class Trainer:
    """A trainer process: its pid and what tells it from a later process of the same pid."""

    pid: int
    identity: str


def identity(pid: int) -> str | None:
    """Boot and start tick of a live process, None if there is none; a zombie counts as none.

    Ticks since boot do not move when somebody sets the clock, as a start time in seconds would.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the name in parentheses, which may hold spaces and parentheses itself.
    fields = text.rpartition(")")[2].split()
    if fields[0] in _DEAD:
        return None
    return f"{_boot_id()}:{fields[19]}"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "unknown"


def is_alive(pid: int | None, known: str) -> bool:
    """Whether the very process is still there."""
    return pid is not None and known != "" and identity(pid) == known


def read_pid_file(attempt_folder: Path) -> Trainer | None:
    """The trainer that wrote its pid into the attempt's folder, if it is alive."""
    try:
        pid = int((attempt_folder / "pid").read_text())
    except (OSError, ValueError):
        return None
    found = identity(pid)
    return Trainer(pid, found) if found is not None else None


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
