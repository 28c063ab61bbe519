"""Lengths of time as people write them."""

from __future__ import annotations

import re
import time

from mmtui.errors import UsageError

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
MOST_DAYS = 3650
"""Nobody waits longer; what is more is a slip."""
MOST_HOURS = 1_000_000
"""Of devices that runs share: more than ten years of ten of them."""


def seconds_ago(text: str, what: str) -> float:
    """As ``seconds_of``, of time that has passed: all of it at most, since nothing is older than what clocks count."""
    return min(_read(text, what), time.time())


def seconds_of(text: str, what: str) -> float:
    """Seconds from ``90s``, ``30m``, ``2h``, ``1d`` or a plain number of seconds.

    Args:
        what: the option that they stand behind.

    Raises:
        UsageError: anything else, or more than ten years.
    """
    seconds = _read(text, what)
    if seconds > MOST_DAYS * 86_400:
        raise UsageError(f"{what} {text} is more than ten years", f"write at most {MOST_DAYS}d")
    return seconds


def device_hours(text: str, what: str) -> float:
    """Hours of devices from ``20h``, ``30m`` or a plain number of seconds.

    Raises:
        UsageError: as of ``seconds_of``, but for the limit.
    """
    hours = _read(text, what) / 3600
    if hours > MOST_HOURS:
        raise UsageError(f"{what} {text} is more than {MOST_HOURS:,} hours", f"write at most {MOST_HOURS}h")
    return hours


def _read(text: str, what: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match:
        raise UsageError(f"{what} '{text}' is no length of time", "write for example 90s, 30m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]
