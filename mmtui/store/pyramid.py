"""Minima and maxima of every series over 16, 256, 4,096 and 65,536 steps, kept up to date as points are stored.

A chart then reads a few thousand rows, however long the series is. Level 0 are the points themselves; a bucket of
level n holds the points of one attempt with the same ``global_step >> 4 * n``. Points without a value are in none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

BITS = 4
LEVELS = 4

Row = tuple[int, int, int, float, float, float, float, int, str | None, float]
"""What is known of a bucket: number, first and last step, lowest, highest, first and last value, points, stage (None:
several), time of the last point (Unix seconds)."""

COLUMNS = "bucket, first_step, last_step, low, high, first, last, count, stage, t"
_INSERT = (
    f"INSERT OR REPLACE INTO metric_buckets (run_id, name, level, attempt, {COLUMNS})"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_BUCKETS = " FROM metric_buckets WHERE run_id = ? AND name = ? AND level = ? AND attempt = ? AND bucket BETWEEN ? AND ?"
POINTS = (
    "SELECT global_step, global_step, global_step, value, value, value, value, 1, stage, t FROM metrics"
    " WHERE run_id = ? AND name = ? AND attempt = ? AND global_step BETWEEN ? AND ? AND value IS NOT NULL"
    " ORDER BY global_step"
)


MetricRow: TypeAlias = tuple[int, str, int, int, str, int, float, "float | None"]
"""run, name, global step, attempt, stage, step, time, value or None: as in the table ``metrics``."""


def update(connection: sqlite3.Connection, run_id: int, attempt: int, stored: Iterable[MetricRow]) -> None:
    """Bring the pyramid up to points that were just stored, in the same transaction.

    Args:
        stored: rows of the table ``metrics``.
    """
    series: dict[str, dict[int, Row | None]] = {}
    for _, name, step, _, stage, _, t, value in stored:
        row = None if value is None else (step, step, step, value, value, value, value, 1, stage, t)
        series.setdefault(name, {})[step] = row
    for name, fresh in series.items():
        _update(connection, run_id, name, attempt, fresh)


def _update(connection: sqlite3.Connection, run_id: int, name: str, attempt: int, fresh: dict[int, Row | None]) -> None:
    touched = {step >> BITS for step in fresh}
    span = (min(touched), max(touched))
    known = connection.execute(f"SELECT bucket{_BUCKETS}", (run_id, name, 1, attempt, *span)).fetchall()
    # Of a bucket that exists, older points count too.
    old = touched.intersection(row[0] for row in known)
    below: list[Row] = [row for step, row in sorted(fresh.items()) if row is not None and step >> BITS not in old]
    if old:
        steps = (min(old) << BITS, (max(old) + 1 << BITS) - 1)
        found = connection.execute(POINTS, (run_id, name, attempt, *steps))
        below = sorted([*below, *(row for row in found if row[0] >> BITS in old)], key=itemgetter(0))
    for level in range(1, LEVELS + 1):
        made = merged(below, BITS)
        written = {row[0] for row in made}
        for bucket in touched - written:  # its points have lost their values
            connection.execute(f"DELETE{_BUCKETS}", (run_id, name, level, attempt, bucket, bucket))
        connection.executemany(_INSERT, [(run_id, name, level, attempt, *row) for row in made])
        touched = {bucket >> BITS for bucket in touched}
        children = (min(touched) << BITS, (max(touched) + 1 << BITS) - 1)
        sql = f"SELECT {COLUMNS}{_BUCKETS} ORDER BY bucket"
        below = connection.execute(sql, (run_id, name, level, attempt, *children)).fetchall()
        below = [row for row in below if row[0] >> BITS in touched]


def merged(rows: Iterable[Row], bits: int) -> list[Row]:
    """Rows in the order of their numbers, put together over ``2**bits`` numbers each."""
    made: list[Row] = []
    for bucket, items in groupby(rows, key=lambda row: row[0] >> bits):
        group = list(items)
        head, tail = group[0], group[-1]
        made.append(
            (
                bucket,
                head[1],
                tail[2],
                min(row[3] for row in group),
                max(row[4] for row in group),
                head[5],
                tail[6],
                sum(row[7] for row in group),
                head[8] if all(row[8] == head[8] for row in group) else None,
                tail[9],
            )
        )
    return made


def fill(connection: sqlite3.Connection) -> None:
    """Make the pyramid of every point that there is: for a database that has none yet."""
    sql = "SELECT run_id, name, global_step, attempt, stage, step, t, value FROM metrics ORDER BY run_id, name"
    for run_id, points in groupby(connection.execute(sql), key=itemgetter(0)):
        for _, of_name in groupby(points, key=itemgetter(1)):
            rows = list(of_name)
            for attempt in sorted({row[3] for row in rows}):
                update(connection, run_id, attempt, [row for row in rows if row[3] == attempt])
