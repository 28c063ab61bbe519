"""Arithmetic over numbers of runs, which may be any floats: sums and differences that stay finite. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

LARGEST = 1e307
"""Numbers no larger than this have finite differences, and finite multiples of these up to eight."""


def bounded(value: float, largest: float = LARGEST) -> float:
    """The number, or the nearest one that is not larger."""
    return min(max(value, -largest), largest)


def between(first: float, second: float, part: float, whole: float) -> float:
    """What lies ``part`` of ``whole`` of the way from a finite number to another; the first where that is no number."""
    found = first + (second - first) * part / (whole or 1.0)
    if math.isfinite(found):
        # Rounding may lead beyond the ends: of the least numbers, and where one end is far larger than the other.
        return min(max(found, min(first, second)), max(first, second)) if 0 <= part <= whole else found
    share = part / (whole or 1.0)
    found = first * (1 - share) + second * share
    return first if math.isnan(found) else bounded(found, sys.float_info.max)


def floored(value: float) -> int:
    """The largest whole number not above it, within what a database can be asked for; -1 for NaN."""
    return -1 if math.isnan(value) else math.floor(bounded(value, 2.0**62))


def mean(values: Sequence[float]) -> float:
    """The mean of one or more numbers, finite if they are."""
    total = sum(values)
    if math.isfinite(total) or not all(map(math.isfinite, values)):
        return total / len(values)
    return 2 * bounded(math.fsum(value / 2 / len(values) for value in values), sys.float_info.max / 2)
