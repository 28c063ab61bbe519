"""The supervisor with a long queue: time of a tick, idle cost, against a floor that only reads the queued rows.

python benchmarks/bench_queue.py [RUNS]
"""

from __future__ import annotations

import gc
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from mmtui.paths import Home
from mmtui.services import forecast, supervisors
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, insert_run
from mmtui.supervisor.loop import Supervisor

CONFIG = {"model": {"backbone": "tiny_vgg"}, "segment": {"steps": 100}, "runtime": {"device": "cpu"}}


def fill(home: Home, count: int) -> None:
    """Queue runs that all wait for a run that is held, so that a tick looks at each and starts none."""
    database = Database(home.create())
    with database.write() as session:
        insert_run(session, NewRun("held", "x", 0, CONFIG, (), {}, [("segment", 100)], held=True))
        for seed in range(count):
            new = NewRun(f"n{seed}", "x", seed, CONFIG, (), {}, [("match", 50), ("segment", 100)], after=[1])
            if seed % 2:
                new = NewRun(f"n{seed}", "x", seed, CONFIG, (), {}, [("segment", 100)], not_before=2e9, work="w")
            insert_run(session, new)
    database.close()


def median_ms(action, times: int = 15) -> float:  # type: ignore[no-untyped-def]
    """Median duration of a call, milliseconds."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return 1000 * statistics.median(found)


def floor(home: Home) -> None:
    """Read what a scheduler must read of every queued run, and nothing more."""
    connection = sqlite3.connect(home.database)
    columns = "id, priority, position, not_before, run_group, after"
    connection.execute(f"SELECT {columns} FROM runs WHERE state = 'queued'").fetchall()
    connection.close()


def idle(home: Home, seconds: float = 20.0) -> dict[str, float]:
    """CPU share of one core and bytes written by a supervisor that has nothing to do but a full queue."""
    environment = {**os.environ, "MMTUI_HOME": str(home.root)}
    child = subprocess.Popen([sys.executable, "-m", "mmtui.supervisor"], env=environment, stderr=subprocess.DEVNULL)
    try:
        time.sleep(8)
        process = psutil.Process(child.pid)
        before, written = process.cpu_times(), process.io_counters().write_bytes
        time.sleep(seconds)
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        return {"cpu_percent": 100 * used / seconds, "written_bytes": process.io_counters().write_bytes - written}
    finally:
        child.terminate()
        child.wait()


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "h")
        fill(home, count)
        os.environ["MMTUI_CPU_SLOTS"] = "2"
        supervisor = Supervisor(home)
        supervisor.tick()
        gc.collect()
        gc.freeze()  # as the supervisor does when it begins

        def whole_tick() -> None:
            supervisor.looked_at = None
            supervisor.tick()

        tick, least = median_ms(whole_tick), median_ms(lambda: floor(home))
        print(f"{count} queued runs, a tick that looks at all: {tick:.1f} ms; reading them {least:.1f} ms", end="")
        print(f"; ratio {tick / least:.1f}; a tick when nothing has changed: {median_ms(supervisor.tick):.2f} ms")
        supervisor.database.close()
        supervisor.reader.close()
        took = median_ms(lambda: forecast.queue_forecast(home), 3)
        print(f"forecast of the whole queue: {took:.0f} ms")
        print("supervisor with this queue and nothing to start:", json.dumps(idle(home)))
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "h")
        fill(home, 0)
        print("supervisor with nothing queued:", json.dumps(idle(home)))
        assert supervisors.status(home).queued_runs == 0


if __name__ == "__main__":
    main()
