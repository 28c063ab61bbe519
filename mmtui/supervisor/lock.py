"""One supervisor per data directory: a lock that the kernel releases when its holder dies."""

from __future__ import annotations

import fcntl
import json
import os
import time

from mmtui.errors import RefusedError
from mmtui.paths import Home
from mmtui.store import clock


class SupervisorLock:
    """Held for the life of the supervisor.

    Raises:
        RefusedError: another supervisor serves this directory.
    """

    def __init__(self, home: Home) -> None:
        home.create()
        self._descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not self._take():
            text = os.read(self._descriptor, 4096).decode(errors="replace")
            os.close(self._descriptor)
            raise RefusedError(
                f"another supervisor already serves {home.root} (pid {_pid(text)})", "stop it with: mmtui daemon stop"
            )
        self._left: dict[str, object] = {}
        self.inode = os.fstat(self._descriptor).st_ino
        self._started_at, self.offset = time.time(), clock.offset()
        self._tell(ready=False)

    def ready(self) -> None:
        """Tell that the database is open: only now does the directory count as served for who has started this."""
        self._tell(ready=True)

    def _tell(self, *, ready: bool) -> None:
        record = {"pid": os.getpid(), "started_at": self._started_at, "offset": self.offset, "ready": ready}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(record).encode(), 0)

    def _take(self) -> bool:
        """Try for a second: somebody who asks whether a supervisor is there holds the lock for an instant."""
        deadline = time.monotonic() + 1.0
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.05)
            else:
                return True

    def leave(self, reason: str) -> None:
        """Say, to those who look before the next one comes, why this one has left."""
        self._left = {"left": reason, "pid": os.getpid()}

    def release(self) -> None:
        """Let the next one in."""
        os.ftruncate(self._descriptor, 0)
        if self._left:
            os.pwrite(self._descriptor, json.dumps(self._left).encode(), 0)
        os.close(self._descriptor)


def _pid(text: str) -> str:
    try:
        return str(json.loads(text)["pid"])
    except (ValueError, KeyError, TypeError):
        return "unknown"
