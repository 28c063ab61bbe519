"""Lengths of time as people write them."""

from __future__ import annotations

import re

from mmtui.errors import UsageError


def seconds_of(text: str) -> float:
    """Seconds from ``90s``, ``30m``, ``2h``, ``1d`` or a plain number of seconds.

    Raises:
        UsageError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match:
        raise UsageError(f"'{text}' is no length of time", "write for example 90s, 30m, 2h or 1d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
