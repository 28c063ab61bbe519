"""Becomes the trainer of one attempt. Run as a file, with the standard library alone.

    python launch.py RUN_DIR ATTEMPT -- COMMAND...

It makes itself the leader of a session of its own, takes the run's lock (which the trainer then holds until it
ends, so that no run is ever trained twice at once), checks that its attempt is still the current one, writes who it
is beside the events, and turns into the command.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

EXIT_LOCKED = 75
_DEAD = frozenset("ZX")


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
    return f"{boot_id()}:{fields[19]}"


def boot_id() -> str:
    """What tells this start of the machine from others, 8 characters."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "unknown"


def main(arguments: list[str]) -> int:
    """Returns only when the trainer must not start."""
    run_dir, attempt = Path(arguments[0]), int(arguments[1])
    command = arguments[arguments.index("--") + 1 :]
    os.umask(0o077)
    # An idle OpenMP thread spins for milliseconds: two trainers on the same cores then take six times as long each.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if os.getpid() != os.getsid(0):
        os.setsid()
    lock = os.open(run_dir / "trainer.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write("another trainer of this run is still alive\n")
        return EXIT_LOCKED
    if (run_dir / "attempt").read_text().strip() != str(attempt):
        sys.stderr.write(f"attempt {attempt} is out of date\n")
        return EXIT_LOCKED
    os.set_inheritable(lock, True)
    folder = run_dir / "attempts" / f"{attempt:03d}"
    temporary = folder / ".pid"
    temporary.write_text(f"{os.getpid()} {identity(os.getpid())}\n")
    temporary.rename(folder / "pid")
    return os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
