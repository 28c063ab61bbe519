"""Durations and deadlines are counted by a clock that nobody sets.

Moments that people read are Unix time, as ``time.time`` tells it: anybody may set that clock, forward or back.
"""

from __future__ import annotations

import time

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady() -> float:
    """Seconds since the machine was started, those included in which it slept: nobody sets this clock.

    It is the same in every process. Sleep counts because a run holds its place meanwhile, and because the seconds
    that are told to people are then what lies between the two moments that they are told.
    """
    return time.clock_gettime(_STEADY)


def offset() -> float:
    """Unix time at which the machine was started, as its clock is set now: it changes only when the clock is set."""
    return time.time() - steady()
