"""What is done to a sweep of many runs, and how long somebody else who writes has to wait meanwhile.

The floor is one durable write of a small file for each run, one after the other.

python benchmarks/bench_many.py [RUNS]
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

from mmtui.paths import Home
from mmtui.services import queue

EACH = 0.1
"""Seconds from one note of the other writer to its next."""


class Other:
    """Writes a note again and again while something else goes on; as patient as every writer of mmtui."""

    def __init__(self, home: Home) -> None:
        self.home, self.waits, self.refused = home, list[float](), 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.write)

    def write(self) -> None:
        with closing(sqlite3.connect(self.home.database, timeout=10.0, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint=0")
            while not self.ended.wait(EACH):
                began = time.perf_counter()
                try:
                    connection.execute("UPDATE runs SET note = ? WHERE id = 1", [str(began)])
                except sqlite3.OperationalError:
                    self.refused += 1
                self.waits.append(time.perf_counter() - began)

    def __enter__(self) -> Other:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


def floor(folder: Path, count: int) -> float:
    """Seconds for a small file for each run, on the disk before the next one is written."""
    began = time.perf_counter()
    for number in range(count):
        with (folder / f"{number}").open("w") as file:
            file.write("x" * 4000)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - began


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "h")
        queue.enqueue(home, "shapes_mixmatch", hold=True)
        least = floor(Path(folder), count)
        print(f"floor: {count} small files on the disk, one after the other: {least:.2f} s")
        ids = [str(number) for number in range(2, count + 2)]
        for words in (
            ["run", "shapes_mixmatch", f"seed=1..{count}", "--hold", "-q"],
            ["cancel", "-q", *ids],
            ["rm", "-q", *ids],
            ["restore", "-q", *ids],
            ["rm", "-q", *ids],
            ["purge", "--yes"],
        ):
            with Other(home) as other:
                began = time.perf_counter()
                environment = {**os.environ, "MMTUI_HOME": str(home.root)}
                command = [sys.executable, "-m", "mmtui", *words]
                subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
                took = time.perf_counter() - began
            print(f"{words[0]:8} {took:6.2f} s, {took / least:4.1f} x the floor", end="")
            print(f"; another writer: {len(other.waits)} notes, {other.refused} refused", end="")
            print(f", longest wait {1000 * max(other.waits, default=0):.0f} ms")


if __name__ == "__main__":
    main()
