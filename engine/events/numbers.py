"""Numbers that come from outside: finite ones, counts, times. Whoever reads events, rows or files asks here."""

from __future__ import annotations

import math

LARGEST_INTEGER = 2**63 - 1
"""Largest integer that SQLite stores."""
LARGEST_STEP = 2**53
"""Largest ``seq``, ``step`` and ``global_step``: every reader, JavaScript's among them, holds such a number exactly."""
_DAY = 86_400.0
EARLIEST = -62_135_596_800.0 + 2 * _DAY
LATEST = 253_402_300_799.0 - 2 * _DAY
"""Unix seconds of the first and the last moment that have a date; no time zone is further than a day from UTC."""


def whole(value: object) -> int | None:
    """A count from 0 to the largest integer SQLite stores, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    return int(value) if 0 <= value <= LARGEST_INTEGER else None


def finite(value: object) -> float | None:
    """A finite number as float, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def is_moment(t: object) -> bool:
    """Whether something is a Unix time in seconds that has a date, the years 1 to 9999."""
    # NaN is neither larger nor smaller; whole numbers of any length can be compared.
    return isinstance(t, int | float) and EARLIEST <= t <= LATEST
