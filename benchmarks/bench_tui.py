"""The screen in a real pty: bytes and CPU while a run trains and while nothing happens, first content, key to frame,
and how old a number is when it is shown; with few runs, and with 10,000 of them and a run of 1,000,000 points.

The floor is what the figures on the screen would take if only the cells that changed were sent: two snapshots of the
terminal (pyte) a second apart are compared, at one byte a cell and eight to go there. python benchmarks/bench_tui.py
"""

from __future__ import annotations

import json
import os
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import bench_cli
import bench_store
import pexpect
import psutil
import pyte

from mmtui.paths import Home
from mmtui.services import supervisors
from mmtui.store.db import Database
from mmtui.tui.terminal.link import QUESTION

SECONDS = 20.0
QUIET = 0.03
"""Seconds without a byte that end a frame."""
MANY, LONG = 10_000, 1_000_000
STEPS = 100_000


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
        self.child.delaybeforesend = None  # pexpect waits 50 ms otherwise
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
        """Milliseconds from a key to the last byte of its frame, which is the first one behind it."""
        self.read(0.3)
        began = time.perf_counter()
        self.child.send(key)
        last, wait = began, 2.0
        while select.select([self.child.child_fd], [], [], wait)[0]:
            self.stream.feed(os.read(self.child.child_fd, 65536))
            last, wait = time.perf_counter(), QUIET
        assert last > began, f"key {key!r} did nothing"
        return 1000 * (last - began)

    def close(self) -> None:
        """Leave."""
        self.child.send("q")
        with suppress(OSError):  # the pty is gone with the program
            self.read(1.0)
        self.child.close(force=True)


class Ages:
    """How long ago the trainer logged what the screen shows, whenever that changes."""

    def __init__(self, events: Path) -> None:
        self.events, self.shown, self.found = events, "", list[float]()

    def look(self, screen: Screen) -> None:
        """Take the step that is shown."""
        text = "\n".join(screen.screen.display)
        match = re.search(rf"segment +(\d+)/{STEPS}", text)
        if match and match[1] != self.shown:
            if self.shown:
                lines = self.events.read_bytes().splitlines()[-200:]
                times = [
                    e["t"] for e in map(json.loads, lines) if (e["stage"], e["step"]) == ("segment", int(match[1]))
                ]
                self.found += [time.time() - times[0]] if times else []
            self.shown = match[1]


def live(home: Home, run_id: str, columns: int, rows: int, keys: str) -> str:
    """While one run trains."""
    screen = Screen(home, columns, rows)
    screen.read(20, "┤")
    first = time.perf_counter() - screen.began
    screen.read(6)
    ages = Ages(home.run(run_id).events(1))
    cpu, sent, floor = screen.cpu(), 0, 0
    for _ in range(int(SECONDS)):
        before = [line[:] for line in screen.screen.display]
        for _ in range(10):
            sent += screen.read(0.1)
            ages.look(screen)
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
    taken = statistics.median(screen.key(key) for key in keys * 8)
    screen.close()
    ratio = sent / max(floor, 1)
    return (
        f"{columns}x{rows} live: {sent / SECONDS / 1000:.2f} kB/s, {ratio:.1f} x the cells that changed;"
        f" {share:.1f} % of a core;"
        f" first content {first:.2f} s; key to frame {taken:.0f} ms median"
        + (
            f"; a step is shown {statistics.median(ages.found):.1f} s after it, at most {max(ages.found):.1f}"
            if ages.found
            else ""
        )
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


def train(home: Home) -> str:
    """Queue a run that takes longer than this; returns its id once it logs."""
    words = [sys.executable, "-m", "mmtui", "run", "shapes_mixmatch", "match.steps=60", f"segment.steps={STEPS}"]
    environment = {**os.environ, "MMTUI_HOME": str(home.root)}
    words += ["runtime.threads=1", "-q"]
    run_id = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    time.sleep(20)
    return run_id


def stop(home: Home, run_id: str) -> None:
    """Cancel it."""
    environment = {**os.environ, "MMTUI_HOME": str(home.root)}
    words = [sys.executable, "-m", "mmtui", "cancel", run_id, "--now"]
    subprocess.run(words, env=environment, capture_output=True, check=True)
    time.sleep(8)


def crowd(home: Home) -> None:
    """Many runs, and the newest with a long series."""
    bench_cli.fill(home, MANY)
    database = Database(home)
    run_id, number = bench_store.add_run(database, MANY)
    bench_store.fill(database, run_id, number, ["loss"], LONG)
    with database.write() as session:
        session.connection().exec_driver_sql(
            "UPDATE runs SET state = 'succeeded', loss = 1, miou = 50 WHERE state IN ('starting', 'running')"
        )
    database.close()


def main() -> None:
    """Print the figures."""
    for many in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            home = Home(Path(folder) / "h").create()
            if many:
                crowd(home)
                print(f"with {MANY:,} runs and one of {LONG:,} points:", flush=True)
            run_id = train(home)
            try:
                for size in ((160, 48), (80, 24)):
                    print(live(home, run_id, *size, "jk" if many else "LL"), flush=True)
                stop(home, run_id)
                print(idle(home), flush=True)
            finally:
                pid, _ = supervisors.holder(home)
                if pid:
                    os.kill(pid, 15)


if __name__ == "__main__":
    main()
