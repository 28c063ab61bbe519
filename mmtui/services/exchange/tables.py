"""Metrics of runs as long tables: CSV, JSON lines, Parquet. One row a point, names as they are.

A value that is no finite number is ``nan`` in CSV, ``null`` in JSON, which has no such number, and NaN in Parquet.
A table takes the place of an earlier one that nobody has changed, of nothing else.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType

from engine import outputs
from mmtui.domain.text import printable
from mmtui.errors import UsageError
from mmtui.paths import Home
from mmtui.services import runs
from mmtui.services.exchange.points import Account, points
from mmtui.services.output_files import IsOurs, replacing
from mmtui.services.written import remember, unchanged

COLUMNS = ("run", "name", "metric", "stage", "step", "global_step", "attempt", "time", "value")
ROWS_OF_A_GROUP = 100_000
"""Rows that a Parquet file keeps together, and that are in memory at once."""


def to_csv(home: Home, ids: Sequence[str], target: Path, *, force: bool = False) -> Account:
    """Write a CSV file.

    Raises:
        RefusedError, UnreachableError: as of ``mmtui.services.output_files.replacing``.
    """
    account = Account()
    with (
        replacing(target, force=force, is_ours=unchanged(home, is_csv_of_ours)) as path,
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        shown = printable if outputs.is_terminal(target) else str
        for row in _rows(home, ids, account):
            writer.writerow([repr(value) if isinstance(value, float) else shown(str(value)) for value in row])
    remember(home, target)
    return account


def to_jsonl(home: Home, ids: Sequence[str], target: Path, *, force: bool = False) -> Account:
    """Write one JSON object a line; raises as ``to_csv`` does."""
    account = Account()
    ours = unchanged(home, is_jsonl_of_ours)
    with replacing(target, force=force, is_ours=ours) as path, path.open("w", encoding="utf-8") as file:
        for row in _rows(home, ids, account):
            *others, value = row
            found = [*others, value if math.isfinite(value) else None]
            file.write(json.dumps(dict(zip(COLUMNS, found, strict=True)), allow_nan=False) + "\n")
    remember(home, target)
    return account


def to_parquet(home: Home, ids: Sequence[str], target: Path, *, force: bool = False) -> Account:
    """Write a Parquet file; raises as ``to_csv`` does.

    Raises:
        UsageError: pyarrow is not installed.
    """
    pyarrow, parquet = _pyarrow()
    text, whole, number = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    types = (text, text, text, text, whole, whole, whole, number, number)
    schema = pyarrow.schema(list(zip(COLUMNS, types, strict=True)))
    account = Account()
    with (
        replacing(target, force=force, is_ours=unchanged(home, is_parquet_of_ours)) as path,
        path.open("wb") as file,
        parquet.ParquetWriter(file, schema) as writer,
    ):
        rows = _rows(home, ids, account)
        while group := list(islice(rows, ROWS_OF_A_GROUP)):
            columns = [
                pyarrow.array(column, kind) for column, kind in zip(zip(*group, strict=True), types, strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))
    remember(home, target)
    return account


def _rows(
    home: Home, ids: Sequence[str], account: Account
) -> Iterator[tuple[str, str, str, str, int, int, int, float, float]]:
    """Every point of every run, as ``COLUMNS`` say; ``time`` is Unix seconds."""
    for run_id in ids:
        name = runs.get_run(home, run_id).row.name
        for p in points(home, run_id, account):
            yield run_id, name, p.metric, p.stage, p.step, p.global_step, p.attempt, p.time, p.value


def is_csv_of_ours(file: Path) -> bool:
    """Whether a file begins with the columns of these tables."""
    expected = ",".join(COLUMNS).encode() + b"\r\n"
    with file.open("rb") as stream:
        return stream.read(len(expected)) in (expected, b"")


def is_jsonl_of_ours(file: Path) -> bool:
    """Whether the first line of a file is a row of these tables."""
    with file.open("rb") as stream:
        line = stream.readline(1 << 20)
    try:
        return not line or list(json.loads(line)) == list(COLUMNS)
    except (ValueError, TypeError, RecursionError):
        return False


def is_parquet_of_ours(file: Path) -> bool:
    """Whether a Parquet file has the columns of these tables."""
    pyarrow, parquet = _pyarrow()
    try:
        return list(parquet.read_schema(file).names) == list(COLUMNS)
    except (pyarrow.ArrowException, OSError):
        return False


IS_OURS: dict[str, IsOurs] = {"csv": is_csv_of_ours, "jsonl": is_jsonl_of_ours, "parquet": is_parquet_of_ours}


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError("Parquet needs pyarrow", "install it: pip install 'mmtui[parquet]'") from None
    return pyarrow, parquet
