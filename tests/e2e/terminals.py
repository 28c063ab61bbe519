"""What a person sees in a terminal, and which processes a data directory has."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pyte

from mmtui.paths import Home
from mmtui.services import runs
from tests.e2e.support import TINY, processes_of
from tests.ptys import Program
from tests.waiting import PATIENCE, until

PROGRAM = Path(sys.executable).with_name("mmtui")
RECIPE = "shapes_mixmatch"
ENDLESS = (*TINY, "segment.steps=1000000")
"""Longer than any test: what is to be seen does not depend on how fast the machine is."""


def chart_of(screen: str) -> list[str]:
    """What is drawn right of the value axis, row by row; [] where there is no chart or no curve in it."""
    rows = [line.split("┤", 1)[1] for line in screen.splitlines() if "┤" in line]
    drawn = [row for row in rows if any("\u2801" <= cell <= "\u28ff" for cell in row)]
    return rows if drawn else []


def wait_for_words(screen: Callable[[], str], words: str) -> None:
    until(lambda: words in screen(), f"{words!r} on the screen", screen)


def wait_for_moving_chart(screen: Callable[[], str]) -> None:
    """Wait for a curve, and for it to change."""
    first = until(lambda: chart_of(screen()), "a chart with a curve", screen)
    until(lambda: chart_of(screen()) not in ([], first), "a change in the curve", screen)


def progress(home: Home, run_id: str = "1") -> float:
    return runs.get_run(home, run_id).row.progress


def screens_of(home: Home) -> list[int]:
    """Pids of the full-screen programs that show a data directory."""
    return [process.pid for process in processes_of(home) if _words(process)[1:] == [str(PROGRAM)]]


def kinds_of(home: Home) -> list[str]:
    """What each process of a data directory is, sorted."""
    return sorted(_kind(_words(process)) for process in processes_of(home))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _kind(words: Sequence[str]) -> str:
    if "mmtui.supervisor" in words:
        return "supervisor"
    if "engine" in words and "train" in words:
        return "trainer"
    return " ".join(words)


def terminal_of(pid: int) -> int:
    """Number of a process's controlling terminal, 0 if it has none (field 7 of /proc/PID/stat)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])


class Terminal:
    """A program in a pseudo-terminal that is read all the time, and the screen it draws."""

    def __init__(self, command: Sequence[str], columns: int, rows: int, environment: dict[str, str]) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.received = bytearray()
        self.child = Program(command[0], list(command[1:]), columns, rows, env=environment, encoding=None, echo=False)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                got = os.read(self.child.child_fd, 65536)
            except OSError:
                return
            if not got:
                return
            with self._lock:
                self.received += got
                self._stream.feed(got)

    def screen(self) -> str:
        with self._lock:
            return "\n".join(self._screen.display)

    def look_of(self, words: str) -> list[str]:
        """The first row that has these words, with colours: it changes when the focus comes or goes."""
        with self._lock:
            for number, text in enumerate(self._screen.display):
                if words in text:
                    return [repr(self._screen.buffer[number][column]) for column in range(self._screen.columns)]
        return []

    def send(self, text: str) -> None:
        os.write(self.child.child_fd, text.encode())

    def wait_for(self, words: str) -> None:
        wait_for_words(self.screen, words)

    def until_ended(self) -> int | None:
        """Wait until the program has left and all that it sent is on the screen; its exit status."""
        until(self.child.has_ended, "the program's end", self.screen)
        self._reader.join(PATIENCE)
        return self.child.until_ended()

    def close(self) -> None:
        """End the program, also one that was stopped."""
        self.child.close()
        self._reader.join(2)  # nothing depends on it
