"""Programs in a pseudo-terminal, and the one way to end them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

import pexpect

from tests.waiting import PATIENCE, breathe, until


class Program(pexpect.spawn):
    """A program in a pseudo-terminal; pexpect's own ``close`` gives a killed one a tenth of a second to be gone."""

    def __init__(self, command: str, arguments: list[str], columns: int, rows: int, **more: Any) -> None:
        self.patience = PATIENCE
        super().__init__(command, arguments, dimensions=(rows, columns), timeout=PATIENCE, **more)

    def has_ended(self) -> bool:
        """Whether it has left; unlike ``isalive`` this never waits."""
        if self.terminated or self.closed:
            return True
        with suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return True

    def drain(self, seconds: float = 0.05) -> Any:
        """What it sends within a time; a program that nobody reads cannot leave."""
        with suppress(pexpect.TIMEOUT, pexpect.EOF, ValueError):
            if not self.flag_eof:  # else pexpect would wait for its end
                return self.read_nonblocking(65536, timeout=seconds)
        breathe()
        return b""

    def until_ended(self, what: str = "") -> int | None:
        """Wait until it has left by itself: its exit status, None if a signal has ended it."""
        until(self.has_ended, what or f"the end of {self.name}", meanwhile=self.drain)
        self.wait()
        return self.exitstatus

    def close(self, force: bool = True) -> None:
        """Ask it to leave, wait, kill it if it does not, and give the terminal back only when it is gone."""
        if not self.closed:
            self._tell(signal.SIGTERM, signal.SIGCONT)  # stopped ones hear nothing
            try:
                until(self.has_ended, "a program's end", meanwhile=self.drain, seconds=self.patience)
            except AssertionError:
                self._tell(signal.SIGKILL)
                until(self.has_ended, "a killed program's end", meanwhile=self.drain)
            super().close(force=False)

    def _tell(self, *numbers: signal.Signals) -> None:
        if not self.has_ended():
            for number in numbers:
                os.kill(self.pid, number)
