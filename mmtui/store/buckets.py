"""Series for charts, read from the pyramid: as many buckets as a chart has room for, from a few thousand rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmtui.domain.views import Bucket
from mmtui.store.pyramid import BITS, COLUMNS, LEVELS, POINTS, Row, merged

_SPANS = (
    "SELECT attempt, min(first_step), max(last_step) FROM metric_buckets"
    " WHERE run_id = ? AND name = ? AND level = ? GROUP BY attempt ORDER BY attempt"
)
_RANGE = (
    f"SELECT {COLUMNS} FROM metric_buckets WHERE run_id = ? AND name = ? AND level = ? AND attempt = ?"
    " AND bucket BETWEEN ? AND ? ORDER BY bucket"
)

_LAST = 2**62


_NUMBER = (int, float)
_KINDS: tuple[Any, ...] = (int, int, int, _NUMBER, _NUMBER, _NUMBER, _NUMBER, int, (str, type(None)), _NUMBER)


def _rows(found: Iterable[Any]) -> Iterator[Row]:
    """Rows of which every cell is what it should be: a damaged one must not hide the others."""
    for cells in found:
        if all(map(isinstance, cells, _KINDS)):
            yield tuple(cells)


@dataclass(frozen=True)
class Line:
    """The points of one attempt of a series, of one stage if ``stage`` is given."""

    connection: sqlite3.Connection
    run_id: int
    name: str
    attempt: int
    stage: str | None = None

    def parts(self, low: int, high: int, level: int) -> Iterator[Row]:
        """The points from step ``low`` to ``high`` in buckets of ``level``, finer where a bucket reaches beyond."""
        if low > high:
            return
        if level == 0:
            found = self.connection.execute(POINTS, (self.run_id, self.name, self.attempt, low, high))
            yield from (row for row in _rows(found) if self.stage in (None, row[8]))
            return
        bits = BITS * level
        first, behind = -(-low >> bits), high + 1 >> bits
        if first >= behind:
            yield from self.parts(low, high, level - 1)
            return
        yield from self.parts(low, (first << bits) - 1, level - 1)
        rows = self.connection.execute(_RANGE, (self.run_id, self.name, level, self.attempt, first, behind - 1))
        for row in list(_rows(rows)):
            if self.stage is None or row[8] == self.stage:
                yield row
            elif row[8] is None:
                yield from self.parts(row[1], row[2], level - 1)
        yield from self.parts(behind << bits, high, level - 1)


def series(
    connection: sqlite3.Connection,
    run_id: int,
    name: str,
    resumed: Mapping[int, int],
    most: int,
    stage: str | None = None,
    within: tuple[int, int] | None = None,
) -> tuple[tuple[Bucket, ...], int]:
    """Buckets of all attempts in the order of x, and the number of points.

    An attempt's tail that a later attempt did again is a line of its own. Borders of buckets are multiples of a power
    of two of steps, so a growing series keeps its old buckets and a chart does not jump.

    Args:
        resumed: {attempt: global step it went on from}.
        most: about how many buckets a line may have.
        within: the first and the last global step of interest.
    """
    made: list[Bucket] = []
    total = 0
    first, last = within or (0, _LAST)
    for attempt, low, high in connection.execute(_SPANS, (run_id, name, LEVELS)).fetchall():
        if not (isinstance(attempt, int) and isinstance(low, int) and isinstance(high, int)):
            continue
        line = Line(connection, run_id, name, attempt, stage)
        border = min((step for number, step in resumed.items() if number > attempt), default=high)
        for start, end, superseded in ((low, min(border, high), False), (max(border + 1, low), high, True)):
            rows = _drawn(line, max(start, first), min(end, last), most)
            total += sum(row[7] for row in rows)
            made += [
                Bucket(float(row[2]), row[3], row[4], row[5], row[6], row[7], attempt, superseded, row[9])
                for row in rows
            ]
    return tuple(sorted(made, key=lambda bucket: (bucket.x, bucket.attempt))), total


def _drawn(line: Line, low: int, high: int, most: int) -> list[Row]:
    """At most about ``most`` buckets of a line."""
    coarse = list(line.parts(low, high, LEVELS))
    if not coarse:
        return []
    low, high, bits = coarse[0][1], coarse[-1][2], 0
    if sum(row[7] for row in coarse) > most:
        while high - low + 1 > most << bits:
            bits += 1
    level = min(bits // BITS, LEVELS)
    rows = [(row[1] >> bits, *row[1:]) for row in line.parts(low, high, level)]
    return merged(rows, 0)
