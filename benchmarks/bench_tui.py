"""The screen in a real pty: bytes and CPU while a run trains and while nothing happens, first content, key to frame.

The floor is what the figures on the screen would take if only the cells that changed were sent: two snapshots of the
terminal (pyte) a second apart are compared, at one byte a cell and eight to go there. python benchmarks/bench_tui.py
"""

from __future__ import annotations

import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pexpect
import psutil
import pyte

from mmtui.paths import Home
from mmtui.services import supervisors
from mmtui.tui.link import QUESTION

SECONDS = 20.0


class Screen:
    """The program in a pty, and what its terminal shows."""

    def __init__(self, home: Home, columns: int, rows: int) -> None:
        environment = {**os.environ, "MMTUI_HOME": str(home.root), "TERM": "xterm-256color"}
        environment.pop("COLUMNS", None), environment.pop("LINES", None)
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.began = time.perf_counter()
        words = ["-m", "mmtui"]
        self.child = pexpect.spawn(sys.executable, words, env=environment, dimensions=(rows, columns), timeout=5)
        self.process = psutil.Process(self.child.pid)

    def read(self, seconds: float, until: str = "") -> int:
        """Bytes that come in so many seconds, or until some words are shown."""
        deadline, count = time.perf_counter() + seconds, 0
        while (left := deadline - time.perf_counter()) > 0:
            if select.select([self.child.child_fd], [], [], left)[0]:
                data = os.read(self.child.child_fd, 65536)
                count += len(data)
                self.stream.feed(data)
                for _ in range(data.count(QUESTION.encode())):
                    os.write(self.child.child_fd, b"\x1b[2;2R")
                if until and any(until in line for line in self.screen.display):
                    break
        return count

    def cpu(self) -> float:
        """CPU seconds so far."""
        times = self.process.cpu_times()
        return times.user + times.system

    def key(self, key: str) -> float:
        """Milliseconds from a key to the last byte of its frame."""
        self.read(0.3)
        began = time.perf_counter()
        self.child.send(key)
        last = began
        while select.select([self.child.child_fd], [], [], 0.25)[0]:
            self.stream.feed(os.read(self.child.child_fd, 65536))
            last = time.perf_counter()
        return 1000 * (last - began)

    def close(self) -> None:
        """Leave."""
        self.child.send("q")
        with suppress(OSError):  # the pty is gone with the program
            self.read(1.0)
        self.child.close(force=True)


def live(home: Home, columns: int, rows: int) -> str:
    """While one run trains."""
    screen = Screen(home, columns, rows)
    screen.read(20, "┤")
    first = time.perf_counter() - screen.began
    screen.read(6)
    cpu, sent, floor = screen.cpu(), 0, 0
    for _ in range(int(SECONDS)):
        before = [line[:] for line in screen.screen.display]
        sent += screen.read(1.0)
        runs = 0
        for old, new in zip(before, screen.screen.display, strict=True):
            differ = [a != b for a, b in zip(old, new, strict=True)]
            cells, places = (
                sum(differ),
                sum(now and not was for was, now in zip([False, *differ], differ, strict=False)),
            )
            runs += cells + 8 * places
        floor += runs
    share = 100 * (screen.cpu() - cpu) / SECONDS
    keys = statistics.median(screen.key(key) for key in ["]", "m", "L", "L", "m", "]"] * 2)
    screen.close()
    ratio = sent / max(floor, 1)
    return (
        f"{columns}x{rows} live: {sent / SECONDS / 1000:.2f} kB/s, {ratio:.1f} x the cells that changed;"
        f" {share:.1f} % of a core;"
        f" first content {first:.2f} s; key to frame {keys:.0f} ms median"
    )


def idle(home: Home) -> str:
    """After everything has ended."""
    screen = Screen(home, 160, 48)
    screen.read(20, "┤")
    screen.read(4)
    cpu, sent = screen.cpu(), screen.read(SECONDS)
    share = 100 * (screen.cpu() - cpu) / SECONDS
    screen.close()
    return f"160x48 idle: {sent / SECONDS:.1f} bytes/s, {share:.2f} % of a core"


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "h").create()
        environment = {**os.environ, "MMTUI_HOME": str(home.root)}
        words = [sys.executable, "-m", "mmtui"]
        run = [*words, "run", "shapes_mixmatch", "match.steps=60", "segment.steps=100000", "runtime.threads=1", "-q"]
        run_id = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout.strip()
        time.sleep(20)
        try:
            for size in ((160, 48), (80, 24)):
                print(live(home, *size), flush=True)
            subprocess.run([*words, "cancel", run_id, "--now"], env=environment, capture_output=True, check=True)
            time.sleep(8)
            print(idle(home))
        finally:
            pid, _ = supervisors.holder(home)
            if pid:
                os.kill(pid, 15)


if __name__ == "__main__":
    main()
