"""Recording, ingest, charts, the screen and questions, each against a floor measured in the same run.

python benchmarks/bench_store.py [POINTS]      POINTS a series of 10,000 runs with 20 series each; default 20
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import run as call
from typing import Any

from engine.events import EventWriter
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.ingest import ingest_file
from mmtui.store import pyramid
from mmtui.store.db import Database
from mmtui.store.runs import NewRun, begin_attempt, insert_run
from mmtui.tui.feed import Feed, Wanted

NAMES = [f"scalar_{index:02}" for index in range(20)]
RECORDED = 25_000
LONG = 1_000_000
RUNS = 10_000


def say(name: str, text: str) -> None:
    """One line of the report."""
    sys.stdout.write(f"{name:34} {text}\n")
    sys.stdout.flush()


@contextmanager
def fresh() -> Iterator[tuple[Home, Database]]:
    """A data directory that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "mmtui").create()
        database = Database(home)
        yield home, database
        database.close()


def add_run(database: Database, seed: int = 0) -> tuple[int, int]:
    """A run with one attempt."""
    with database.write() as session:
        new = NewRun(f"run {seed}", "r", seed, {"seed": seed}, (), {}, [("segment", LONG)])
        run_id = insert_run(session, new)
        return run_id, begin_attempt(session, run_id, ["cpu:0"], "here")


def values_of(step: int) -> dict[str, float]:
    """Twenty scalars of a step."""
    return {name: 0.123456789 * step + index for index, name in enumerate(NAMES)}


def timed(action: Callable[[], Any], times: int) -> list[float]:
    """Durations of calls in seconds, ascending."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return sorted(found)


def recording(path: Path) -> None:
    """What 20 scalars cost the training loop, and the floor: the same numbers as JSON into a file."""
    writer = EventWriter(path)
    writer.emit("run_started", {"stages": [["segment", LONG]], "resumed_global_step": 0})
    before, step = path.stat().st_size, iter(range(1, RECORDED + 1))

    def record() -> None:
        at = next(step)
        writer.at("segment", at, at)
        writer.emit("metrics", values_of(at))

    taken = timed(record, RECORDED)
    bare, at_floor = os.open(f"{path}.floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND), iter(range(1, RECORDED + 1))
    floor = timed(lambda: os.write(bare, json.dumps(values_of(next(at_floor))).encode() + b"\n"), RECORDED)
    os.close(bare)
    middle, worst, base = (1e6 * x for x in (taken[RECORDED // 2], taken[RECORDED * 99 // 100], floor[RECORDED // 2]))
    say(
        "record 20 scalars",
        f"{middle:.1f} us median, {worst:.1f} us p99; {middle / base:.2f}x json + write ({base:.1f})",
    )
    say("event file", f"{(path.stat().st_size - before) / RECORDED / len(NAMES):.1f} bytes a scalar")


def rivals() -> None:
    """The same 20 scalars through the clients of other trackers, as far as they are installed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        makers = (
            ("wandb (offline)", _wandb),
            ("TensorBoard", _tensorboard),
            ("mlflow (SQLite)", _mlflow),
            ("trackio", _trackio),
            ("aim", _aim),
        )
        for title, make in makers:
            try:
                record, times = make(folder)
            except ImportError:
                say(f"  {title}", "is not installed")
                continue
            except Exception as error:
                say(f"  {title}", f"cannot run here: {error}")
                continue
            taken = timed(record, times)
            say(f"  {title}", f"{1e6 * taken[times // 2]:,.0f} us median, {1e6 * taken[times * 99 // 100]:,.0f} us p99")


def _wandb(folder: Path) -> tuple[Callable[[], Any], int]:
    import wandb

    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(project="bench", mode="offline", dir=str(folder), settings=settings)
    step = iter(range(1, RECORDED))
    return lambda: run.log(values_of(next(step))), 2000


def _tensorboard(folder: Path) -> tuple[Callable[[], Any], int]:
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer, step = EventFileWriter(str(folder / "tensorboard")), iter(range(1, RECORDED))

    def record() -> None:
        at = next(step)
        for name, value in values_of(at).items():
            summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=name, simple_value=value)])
            writer.add_event(event_pb2.Event(wall_time=time.time(), step=at, summary=summary))

    return record, 2000


def _trackio(folder: Path) -> tuple[Callable[[], Any], int]:
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")
    import trackio

    trackio.init(project="bench", name="one", embed=False)
    step = iter(range(1, RECORDED))
    return lambda: trackio.log(values_of(next(step))), 2000


def _aim(folder: Path) -> tuple[Callable[[], Any], int]:
    import aim

    run, step = aim.Run(repo=str(folder / "aim"), system_tracking_interval=None), iter(range(1, RECORDED))

    def record() -> None:
        at = next(step)
        for name, value in values_of(at).items():
            run.track(value, name=name, step=at)

    return record, 500


def _mlflow(folder: Path) -> tuple[Callable[[], Any], int]:
    import logging

    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    run, step = client.create_run(client.create_experiment("bench")).info.run_id, iter(range(1, RECORDED))

    def record() -> None:
        at = next(step)
        metrics = [Metric(name, value, round(1000 * time.time()), at) for name, value in values_of(at).items()]
        client.log_batch(run, metrics=metrics)

    return record, 200


def ingesting() -> None:
    """Points a second into rows and pyramid, and the floor: json.loads and one INSERT a point, nothing else."""
    with fresh() as (home, database):
        run_id, number = add_run(database)
        path = home.run(str(run_id)).events(number)
        recording(path)
        count = RECORDED * len(NAMES)
        (taken,) = timed(lambda: ingest_file(database, path, run_id, number, 0), 1)
        stored = sum(Path(f"{home.database}{end}").stat().st_size for end in ("", "-wal"))

        def floor() -> None:
            bare = sqlite3.connect(home.root / "floor.db")
            bare.execute("PRAGMA journal_mode=WAL")
            bare.execute("CREATE TABLE m (r, n, s, v, PRIMARY KEY (r, n, s)) WITHOUT ROWID")
            with path.open("rb") as file:
                events = [json.loads(line) for line in file][1:]
            rows = ((1, name, e["step"], value) for e in events for name, value in e["values"].items())
            bare.executemany("INSERT INTO m VALUES (?, ?, ?, ?)", rows)
            bare.commit()
            bare.close()

        (base,) = timed(floor, 1)
    say("ingest", f"{count / taken:,.0f} points/s; {taken / base:.2f}x json.loads + INSERT ({count / base:,.0f})")
    say("while it is new, with WAL", f"{stored / count:.0f} bytes a point")


def fill(database: Database, run_id: int, number: int, names: list[str], count: int) -> None:
    """Points of a run, past the event file."""
    with database.write() as session:
        driver: Any = session.connection().connection.driver_connection
        for name in names:
            rows = [
                (run_id, name, s, number, "segment", s, 1e9 + s, (s * 7919 % 1000) / 7) for s in range(1, count + 1)
            ]
            driver.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            pyramid.update(driver, run_id, number, rows)


def charting() -> None:
    """A chart of 400 buckets from a million points, and the floor: SQLite reading these points."""
    with fresh() as (home, database):
        run_id, number = add_run(database)
        fill(database, run_id, number, ["loss"], LONG)
        taken = timed(lambda: runs.series(home, str(run_id), "loss", max_buckets=400), 20)[10]

        def floor() -> None:
            bare = sqlite3.connect(home.database)
            bare.execute("SELECT global_step, value FROM metrics WHERE run_id = 1 AND name = 'loss'").fetchall()
            bare.close()

        base = timed(floor, 3)[1]
        made = runs.series(home, str(run_id), "loss", max_buckets=400)
    assert made.total_points == LONG and sum(bucket.count for bucket in made.buckets) == LONG
    say("chart of 1,000,000 points", f"{1000 * taken:.1f} ms, {taken / base:.4f}x reading them ({1000 * base:.0f} ms)")


def refreshing() -> None:
    """One refresh of the screen among 1,000 runs with 20 series each, and the floor: one connection, one count."""
    with fresh() as (home, database):
        for seed in range(1000):
            run_id, number = add_run(database, seed)
            fill(database, run_id, number, NAMES, 20)
        feed, wanted = Feed(home), Wanted(run_id="500", metric=NAMES[3])
        assert feed._read(wanted).total == 1000
        taken = timed(lambda: feed._read(wanted), 50)[25]

        def floor() -> None:
            bare = sqlite3.connect(home.database)
            bare.execute("SELECT state, count(*) FROM runs GROUP BY state").fetchall()
            bare.close()

        base = timed(floor, 50)[25]
    say("refresh of the screen, 1,000 runs", f"{1000 * taken:.1f} ms, {taken / base:.1f}x connecting and counting")


def asking(points: int) -> None:
    """Questions from the shell to 10,000 runs with 20 series each, and the floor: a bare Python with sqlite3."""
    with fresh() as (home, database):
        for seed in range(RUNS):
            run_id, number = add_run(database, seed)
            fill(database, run_id, number, NAMES, points)
        with database.write() as session:
            session.connection().exec_driver_sql("UPDATE runs SET state = 'succeeded', miou = seed / 200.0, loss = 1")
            session.connection().exec_driver_sql("UPDATE runs SET global_step = 10, attempt = 1")
        connection = sqlite3.connect(home.database)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        total = RUNS * len(NAMES) * points
        say(f"{RUNS:,} runs, {total:,} points", f"{home.database.stat().st_size / total:.0f} bytes a point")
        env = {**os.environ, "MMTUI_HOME": str(home.root), "COLUMNS": "120"}
        program = str(Path(sysconfig.get_path("scripts")) / "mmtui")
        bare = [sys.executable, "-c", "import sqlite3"]
        base = statistics.median(timed(lambda: call(bare, env=env, check=True), 7))
        for words in (
            ["ls"],
            ["show", "5000"],
            ["metrics", "5000", "-m", NAMES[3], "--last", "5"],
            ["best", "--max", "miou"],
            ["best", "--max", f"max {NAMES[3]}"],
            ["ls", "--filter", "miou > 49 and seed ~ 9"],
        ):
            run = lambda words=words: call([program, *words], env=env, capture_output=True, check=True)  # noqa: E731
            taken = statistics.median(timed(run, 5))
            say(f"mmtui {' '.join(words)}"[:34], f"{1000 * taken:.0f} ms; {taken / base:.1f}x python + sqlite3")


def main() -> None:
    """All of it."""
    ingesting()
    rivals()
    charting()
    refreshing()
    asking(int(sys.argv[1]) if len(sys.argv) > 1 else 20)


if __name__ == "__main__":
    main()
