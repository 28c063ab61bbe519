"""From Unix times to dates, the one place: a time that was stored or comes from elsewhere may be none.

Foreign trainers write milliseconds, negative times and worse; one of them may not keep the others from being shown.
"""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

from engine.events.numbers import is_moment

NONE = "-"
"""Stands where there is no date."""


def local(t: float | None) -> datetime | None:
    """The local date and time, None where there is none."""
    return datetime.fromtimestamp(t) if t is not None and is_moment(t) else None


def text(t: float | None, shape: str, missing: str = NONE) -> str:
    """The local date and time as ``strftime`` writes it; ``missing`` where there is none."""
    found = local(t)
    return missing if found is None else found.strftime(shape)


def iso(t: float | None) -> str | None:
    """UTC as ISO 8601 with milliseconds, None where there is none."""
    if t is None or not is_moment(t):
        return None
    return datetime.fromtimestamp(t, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def offset(t: float) -> float:
    """Seconds that local time is ahead of UTC at a moment; 0 where there is no date."""
    return float(time.localtime(math.floor(t)).tm_gmtoff or 0) if is_moment(t) else 0.0
