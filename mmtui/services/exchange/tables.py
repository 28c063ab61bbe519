"""Metrics of runs as long tables: CSV, JSON lines, Parquet. One row a point, as they were logged."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import runs

COLUMNS = ("run", "name", "metric", "stage", "step", "global_step", "attempt", "time", "value")


def points(home: Home, ids: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Every point of every metric; tails that a later attempt did again are left out. ``time`` is Unix seconds."""
    for run_id in ids:
        name = runs.get_run(home, run_id).row.name
        for metric in runs.metric_names(home, run_id):
            for p in runs.points(home, run_id, metric):
                yield run_id, name, metric, p.stage, p.step, p.global_step, p.attempt, p.time, p.value


def to_csv(home: Home, ids: Sequence[str], target: Path) -> int:
    """Write a CSV file; returns the number of rows."""
    count = 0
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in points(home, ids):
            writer.writerow([repr(value) if isinstance(value, float) else value for value in row])
            count += 1
    return count


def to_jsonl(home: Home, ids: Sequence[str], target: Path) -> int:
    """Write one JSON object a line; returns the number of rows."""
    count = 0
    with target.open("w", encoding="utf-8") as file:
        for row in points(home, ids):
            file.write(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n")
            count += 1
    return count


def to_parquet(home: Home, ids: Sequence[str], target: Path) -> int:
    """Write a Parquet file; returns the number of rows.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError("Parquet needs pyarrow", "install it: pip install 'mmtui[parquet]'") from None
    columns = list(zip(*points(home, ids), strict=True)) or [()] * len(COLUMNS)
    table = pyarrow.table({name: list(values) for name, values in zip(COLUMNS, columns, strict=True)})
    parquet.write_table(table, target)
    return int(table.num_rows)
