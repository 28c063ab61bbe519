"""The supervisor as seen from outside: is it there, start it, stop it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from mmtui.access import remedy
from mmtui.domain.states import ACTIVE_STATES, RunState
from mmtui.domain.text import printable
from mmtui.domain.views import SupervisorStatus
from mmtui.errors import MmtuiError, UnreachableError
from mmtui.paths import Home
from mmtui.services.plain_files import open_file
from mmtui.services.runs import LOG_TAIL_BYTES, count_runs
from mmtui.store import clock

START_SECONDS = 20.0
_MOST_OF_LOCK = 16 * 1024


def status(home: Home) -> SupervisorStatus:
    """Whether a supervisor serves the directory; the kernel's lock tells, no file can be stale."""
    pid, started_at = holder(home)
    trouble = ""
    try:
        counts = count_runs(home)
    except UnreachableError as error:
        counts, trouble = {}, error.message
    return SupervisorStatus(
        running=pid is not None,
        pid=pid,
        started_at=started_at,
        heartbeat_age=_heartbeat_age(home) if pid is not None else None,
        active_runs=sum(counts.get(state.value, 0) for state in ACTIVE_STATES),
        queued_runs=counts.get(RunState.QUEUED.value, 0),
        home=str(home.root),
        note=_why_left(home) if pid is None else "",
        trouble=trouble,
    )


def _why_left(home: Home) -> str:
    """Why the last supervisor has left, if nobody has told it to: it keeps that in the lock file that it gave up."""
    try:
        with open_file(home.lock) as file:
            told = json.loads(file.read(_MOST_OF_LOCK))
        reason, pid = str(told["left"]), int(told["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    why = f"{printable(reason)} under the supervisor (pid {pid}), which has left; trainers go on"
    return f"{why}; run: mmtui doctor --fix"


def _heartbeat_age(home: Home) -> float | None:
    """Seconds since the supervisor last looked after a run; it touches its lock file only while there is work."""
    try:
        beat, since = home.lock.stat().st_mtime, (_record(home) or {}).get("offset")
    except OSError:
        return None
    # It dates its beats by the clock as it was set when it began: a duration is counted by one that nobody sets.
    now = clock.steady() + since if isinstance(since, float) else time.time()
    return max(now - beat, 0.0)


class LockRecord(TypedDict, total=False):
    """What the process that holds the lock writes into it: its pid, and when it started, Unix seconds."""

    pid: int
    started_at: float


def holder(home: Home) -> tuple[int | None, float | None]:
    """Pid and start time of the process that holds the lock, (None, None) if nobody does."""
    record = _record(home)
    if record is None:
        return None, None
    try:
        return int(record["pid"]), float(record["started_at"])
    except (ValueError, KeyError, TypeError):
        return -1, None


def _record(home: Home) -> LockRecord | None:
    """What the process that holds the lock says of itself, {} if nothing yet; None if nobody holds it."""
    try:
        descriptor = os.open(home.lock, os.O_RDONLY | os.O_CLOEXEC)  # on a medium that is read-only, too
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 4096, 0)
    else:
        return None
    finally:
        os.close(descriptor)
    try:
        found: LockRecord = json.loads(text)
    except ValueError:
        return {}
    return found if _is_object(found) else {}


def _is_object(read: object) -> bool:
    return isinstance(read, dict)


def is_served(home: Home) -> bool:
    """Whether a supervisor holds the directory's lock, one that comes up or leaves included."""
    return _record(home) is not None


def _serves(home: Home) -> bool:
    """Whether somebody holds the lock and has opened the database; older supervisors do not tell."""
    record = _record(home) or {}
    return "pid" in record and record.get("ready", True) is True


def ensure(home: Home) -> SupervisorStatus:
    """Start a supervisor if there is none, detached from this terminal, and wait until it serves.

    Returns:
        what is there now; its note is still that of the one before.

    Raises:
        UnreachableError: it did not come up; its last words are in the message.
    """
    before = status(home)
    if not before.running:
        home.create()
        try:
            process = _start(home)
        except OSError as error:
            why = f"{error.filename or sys.executable}: {error.strerror or error}"
            closed = remedy(error.filename) if isinstance(error, PermissionError) and error.filename else ""
            hint = f"what is queued stays queued{closed and f'; {closed}'}"
            raise UnreachableError(f"the supervisor cannot be started: {why}", hint) from None
        _wait_until_served(home, process)
    return replace(status(home), note=before.note)


def _start(home: Home) -> subprocess.Popen[bytes]:
    log = os.open(home.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "mmtui.supervisor"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "MMTUI_HOME": str(home.root)},
            start_new_session=True,
        )
    finally:
        os.close(log)


def _wait_until_served(home: Home, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        gone = process.poll() is not None
        if _serves(home):
            return
        if gone and _record(home) is None:  # else another one that was started at the same moment is coming up
            break
        time.sleep(0.05)
    raise UnreachableError(f"the supervisor did not start: {_last_line(home.supervisor_log)}", "see: mmtui doctor")


def _last_line(path: Path) -> str:
    try:
        with open_file(path) as file:
            file.seek(max(file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES, 0))
            lines = file.read(LOG_TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return "it said nothing"
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"


def stop(home: Home, timeout: float = 10) -> bool:
    """Stop the supervisor; runs go on and the next one takes them over. False if there was none.

    Raises:
        MmtuiError: it did not leave in time.
    """
    pid, _ = holder(home)
    if pid is None:
        return False
    if pid <= 0:
        raise MmtuiError("the supervisor is just starting", "try again in a second")
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        # -1: the lock is still held by one that is on its way out (or in) and says nothing of itself.
        if holder(home)[0] not in (pid, -1):
            return True
        time.sleep(0.05)
    raise MmtuiError(f"the supervisor (pid {pid}) did not leave within {timeout:g} s", f"end it with: kill -9 {pid}")
