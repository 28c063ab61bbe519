"""Series for charts, read from the pyramid: as many buckets as a chart has room for, from a few thousand rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from mmtui.domain.views import Bucket
from mmtui.store.pyramid import BITS, LEVELS, Row, merged

_SPANS = (
    "SELECT s.run, s.name, b.attempt, min(b.first_step), max(b.last_step) FROM series s CROSS JOIN metric_buckets b"
    f" ON b.run_id = s.run AND b.name = s.name AND b.level = {LEVELS} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
)
# The parts are looked up one by one in the primary keys; they are numbered, as the rows come back.
_PARTS = (
    "SELECT p.part, b.bucket, b.first_step, b.last_step, b.low, b.high, b.first, b.last, b.count, b.stage, b.t"
    " FROM parts p CROSS JOIN metric_buckets b ON b.run_id = p.run AND b.name = p.name AND b.level = p.level"
    " AND b.attempt = p.attempt AND b.bucket BETWEEN p.low AND p.high WHERE p.level > 0"
    " UNION ALL SELECT p.part, m.global_step, m.global_step, m.global_step, m.value, m.value, m.value, m.value, 1,"
    " m.stage, m.t FROM parts p CROSS JOIN metrics m ON m.run_id = p.run AND m.name = p.name"
    " AND m.global_step BETWEEN p.low AND p.high AND m.attempt = p.attempt"
    " WHERE p.level = 0 AND m.value IS NOT NULL"
)
_AT_ONCE = 4000
"""Rows of seven values that one statement is given; SQLite takes 32,766 values."""

_LAST = 2**62


_NUMBER = (int, float)
_KINDS: tuple[Any, ...] = (int, int, int, _NUMBER, _NUMBER, _NUMBER, _NUMBER, int, (str, type(None)), _NUMBER)


Query = Callable[[str, Sequence[object]], Sequence[Any]]
"""Gives all rows of a query with these parameters."""
Series = tuple[int, str]
"""Run and metric."""
Part = tuple[int, int, int, int]
"""Number of a line, level, and the first and last bucket of that level, of level 0 the first and last step."""


@dataclass(frozen=True)
class Line:
    """Points of one attempt between two steps, those included; superseded: a later attempt did them again."""

    series: Series
    attempt: int
    low: int
    high: int
    superseded: bool


def several(
    query: Query,
    names: Sequence[Series],
    resumed: Mapping[int, Mapping[int, int]],
    most: int,
    stage: str | None = None,
    within: Mapping[Series, tuple[int, int] | None] = {},
) -> dict[Series, tuple[tuple[Bucket, ...], int]]:
    """Of each series the buckets of all attempts in the order of x, and the number of points.

    An attempt's tail that a later attempt did again is a line of its own. Borders of buckets are multiples of a power
    of two of steps, so a growing series keeps its old buckets and a chart does not jump. All series together take three
    statements; a few more if a stage is chosen, since buckets may hold points of several.

    Args:
        resumed: {run: {attempt: global step it went on from}}.
        most: about how many buckets a line may have.
        stage: points of this one alone.
        within: the first and the last global step of interest of a series, None: all.
    """
    lines = list(_lines(query, names, resumed, within))
    coarse = _read(query, lines, [(n, *p) for n, line in enumerate(lines) for p in _parts(line.low, line.high)], stage)
    bits = {number: _bits(rows, most) for number, rows in coarse.items()}
    fine = [
        (number, *part)
        for number, rows in coarse.items()
        for part in _parts(rows[0][1], rows[-1][2], min(bits[number] // BITS, LEVELS))
    ]
    drawn: dict[Series, list[Bucket]] = {series: [] for series in names}
    totals: Counter[Series] = Counter()
    for number, rows in _read(query, lines, fine, stage).items():
        line = lines[number]
        for row in merged([(row[1] >> bits[number], *row[1:]) for row in rows], 0):
            totals[line.series] += row[7]
            drawn[line.series].append(
                Bucket(float(row[2]), row[3], row[4], row[5], row[6], row[7], line.attempt, line.superseded, row[9])
            )
    return {
        series: (tuple(sorted(found, key=lambda bucket: (bucket.x, bucket.attempt))), totals[series])
        for series, found in drawn.items()
    }


def _lines(
    query: Query,
    names: Sequence[Series],
    resumed: Mapping[int, Mapping[int, int]],
    within: Mapping[Series, tuple[int, int] | None],
) -> Iterator[Line]:
    """What is drawn: of every attempt what counts, and what a later one did again."""
    for run_id, name, attempt, low, high in _asked(query, "series(run, name)", _SPANS, list(dict.fromkeys(names))):
        if not (isinstance(attempt, int) and isinstance(low, int) and isinstance(high, int)):
            continue
        first, last = within.get((run_id, name)) or (0, _LAST)
        border = min((step for number, step in resumed[run_id].items() if number > attempt), default=high)
        for start, end, superseded in ((low, min(border, high), False), (max(border + 1, low), high, True)):
            yield Line((run_id, name), attempt, max(start, first), min(end, last), superseded)


def _parts(low: int, high: int, level: int = LEVELS) -> Iterator[tuple[int, int, int]]:
    """Whole buckets of ``level`` that cover the steps from ``low`` to ``high``, and finer ones at the ends."""
    if low > high:
        return
    if level == 0:
        yield 0, low, high
        return
    bits = BITS * level
    first, behind = -(-low >> bits), high + 1 >> bits
    if first >= behind:
        yield from _parts(low, high, level - 1)
        return
    yield from _parts(low, (first << bits) - 1, level - 1)
    yield level, first, behind - 1
    yield from _parts(behind << bits, high, level - 1)


def _read(query: Query, lines: Sequence[Line], parts: Sequence[Part], stage: str | None) -> dict[int, list[Row]]:
    """The buckets of each line by steps; what no bucket of a stage alone holds is read again, more finely."""
    found: dict[int, list[Row]] = {}
    while parts:
        asked = [
            (index, *lines[number].series, lines[number].attempt, level, low, high)
            for index, (number, level, low, high) in enumerate(parts)
        ]
        finer: list[Part] = []
        for index, *columns in _asked(query, "parts(part, run, name, attempt, level, low, high)", _PARTS, asked):
            if not all(map(isinstance, columns, _KINDS)):
                continue  # a damaged row must not hide the others
            number, level = parts[index][:2]
            row: Row = tuple(columns)
            if stage in (None, row[8]):
                found.setdefault(number, []).append(row)
            elif row[8] is None and level:
                finer += [(number, *part) for part in _parts(row[1], row[2], level - 1)]
        parts = finer
    return {number: sorted(rows, key=itemgetter(1)) for number, rows in sorted(found.items())}


def _asked(query: Query, table: str, sql: str, rows: Sequence[Sequence[object]]) -> Iterator[Any]:
    """Rows of a query over a table that is given with it."""
    for first in range(0, len(rows), _AT_ONCE):
        some = rows[first : first + _AT_ONCE]
        marks = f"({','.join('?' * len(some[0]))})"
        values = ",".join([marks] * len(some))
        yield from query(f"WITH {table} AS (VALUES {values}) {sql}", [value for row in some for value in row])


def _bits(coarse: Sequence[Row], most: int) -> int:
    """How many steps a bucket spans, as a power of two, so that there are at most about ``most``."""
    low, high, bits = coarse[0][1], coarse[-1][2], 0
    if sum(row[7] for row in coarse) > most:
        while high - low + 1 > most << bits:
            bits += 1
    return bits
