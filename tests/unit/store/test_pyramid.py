"""Series read from the pyramid, against a naive grouping of all the points."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtui.domain.views import Bucket
from mmtui.paths import Home
from mmtui.store import buckets, pyramid
from mmtui.store.db import Database
from mmtui.store.reader import Reader

Point = tuple[int, int, str, float | None]
"""(global step, attempt, stage, value)."""


def naive(points: Sequence[Point], resumed: dict[int, int], most: int) -> list[Bucket]:
    """Each line (attempt, superseded) for itself, grouped over the smallest power of two of steps that suffices."""
    lines: dict[tuple[int, bool], list[Point]] = {}
    for point in sorted(points):
        step, attempt = point[:2]
        superseded = any(number > attempt and start < step for number, start in resumed.items())
        lines.setdefault((attempt, superseded), []).append(point)
    found = []
    for (attempt, superseded), line in lines.items():
        width = 1
        while len(line) > most and line[-1][0] - line[0][0] + 1 > most * width:
            width *= 2
        for group in {point[0] // width: None for point in line}:
            mine = [point for point in line if point[0] // width == group]
            values = [point[3] for point in mine if point[3] is not None]
            x = float(mine[-1][0])
            count = len(mine)
            found.append(Bucket(x, min(values), max(values), values[0], values[-1], count, attempt, superseded, x / 2))
    return sorted(found, key=lambda bucket: (bucket.x, bucket.attempt))


@pytest.fixture
def connection() -> sqlite3.Connection:
    """The two tables, in memory."""
    from mmtui.store.migrations.versions.m0004_buckets import TABLE

    made = sqlite3.connect(":memory:")
    made.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY)")
    made.execute(
        "CREATE TABLE metrics (run_id, name, global_step, attempt, stage, step, t, value,"
        " PRIMARY KEY (run_id, name, global_step, attempt)) WITHOUT ROWID"
    )
    made.execute(TABLE)
    return made


def store(connection: sqlite3.Connection, points: Sequence[Point], name: str = "loss") -> None:
    """One batch, as ingest stores it."""
    for attempt in dict.fromkeys(point[1] for point in points):
        rows = [(1, name, step, a, stage, step, step / 2, value) for step, a, stage, value in points if a == attempt]
        connection.executemany("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        pyramid.update(connection, 1, attempt, rows)


def series(
    connection: sqlite3.Connection, resumed: dict[int, int], most: int, stage: str | None = None
) -> tuple[tuple[Bucket, ...], int]:
    """The loss as a chart has it."""

    def query(text: str, parameters: Sequence[Any]) -> list[Any]:
        return connection.execute(text, parameters).fetchall()

    return buckets.several(query, [(1, "loss")], {1: resumed}, most, stage)[1, "loss"]


steps = st.integers(0, 3000) | st.integers(0, 300_000)
values = st.floats(-10, 10, allow_nan=False) | st.none()
attempts = st.integers(1, 3)
batches = st.lists(st.lists(st.tuples(steps, attempts, values), max_size=60), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(batches, st.dictionaries(attempts, steps), st.integers(1, 40), st.sampled_from([None, "a", "b"]), steps)
def test_series_in_any_order_and_any_batches_is_that_of_its_points(
    connection: sqlite3.Connection,
    batches: list[list[tuple[int, int, float | None]]],
    resumed: dict[int, int],
    most: int,
    stage: str | None,
    change: int,
) -> None:
    """Steps come out of order, twice, without a value; stages change within a bucket."""
    connection.execute("DELETE FROM metrics")
    connection.execute("DELETE FROM metric_buckets")
    kept: dict[tuple[int, int], Point] = {}
    for batch in batches:
        points = [(step, attempt, "a" if step <= change else "b", value) for step, attempt, value in batch]
        store(connection, points)
        kept |= {point[:2]: point for point in points}
    wanted = [p for p in kept.values() if p[3] is not None and stage in (None, p[2])]
    found, total = series(connection, resumed, most, stage)
    assert total == len(wanted)
    assert list(found) == naive(wanted, resumed, most)
    before = connection.execute("SELECT * FROM metric_buckets ORDER BY 1, 2, 3, 4, 5").fetchall()
    connection.execute("DELETE FROM metric_buckets")
    pyramid.fill(connection)
    assert connection.execute("SELECT * FROM metric_buckets ORDER BY 1, 2, 3, 4, 5").fetchall() == before


@given(st.integers(50, 4000), st.integers(4, 32))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_growing_series_keeps_its_borders(connection: sqlite3.Connection, length: int, most: int) -> None:
    """One more point changes the last bucket only, or merges old ones; it moves no border between them."""
    connection.execute("DELETE FROM metric_buckets")
    connection.execute("DELETE FROM metrics")
    store(connection, [(step, 1, "a", math.sin(step)) for step in range(length)])
    before, _ = series(connection, {}, most)
    store(connection, [(length, 1, "a", 7.0)])
    after, _ = series(connection, {}, most)
    assert len(after) <= most + 1  # a border may cut the first bucket
    assert {b.x for b in after[:-1]} <= {b.x for b in before}
    assert after[-1].high == 7.0


def test_chart_of_a_long_series_reads_few_rows(connection: sqlite3.Connection) -> None:
    store(connection, [(step, 1, "a", float(step % 97)) for step in range(200_000)])
    read = 0

    def count(_sql: str) -> None:
        nonlocal read
        read += 1

    connection.set_trace_callback(count)
    found, total = series(connection, {}, 400)
    assert total == 200_000 and 190 <= len(found) <= 401
    assert max(bucket.high for bucket in found) == 96.0 and read < 40, "statements, not points"


def test_run_that_is_forgotten_leaves_no_buckets(
    home: Home, add_run: Callable[..., int], new_attempt: Callable[..., Any], database: Database
) -> None:
    from mmtui.store.runs import forget_run

    run_id = add_run()
    file = new_attempt(run_id)
    file.start()
    for step in range(1, 40):
        file.emit("metrics", step, {"loss": 1.0 / step, "lr": None})
        file.read()
    with Reader(home) as reader:
        found, total = reader.series(run_id, "loss", 100)
        assert (len(found), total) == (39, 39)
        assert reader.query("SELECT count(*) FROM metric_buckets WHERE name = 'lr'")[0][0] == 0
        assert reader.query("SELECT count(*) FROM metric_buckets WHERE level = 1")[0][0] == 3
    with database.write() as session:
        forget_run(session, run_id)
    with Reader(home) as reader:
        assert reader.query("SELECT count(*) FROM metric_buckets")[0][0] == 0
