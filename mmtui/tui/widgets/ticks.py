"""Where an axis is labelled, and with what: numbers, steps, times of day, times since the beginning. Pure functions."""

from __future__ import annotations

import math

from engine.events.numbers import EARLIEST, LATEST
from mmtui.domain import dates
from mmtui.domain.text import number

LABEL_WIDTH = 7
Tick = tuple[float, str]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TIMES = (
    *(1, 2, 5, 10, 15, 30),
    *(factor * _MINUTE for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * _HOUR for factor in (1, 2, 3, 6, 12)),
    *(factor * _DAY for factor in (1, 2, 7, 14, 28, 91, 182, 364)),
)
"""Distances of ticks of time, seconds."""
_SHORTEST = 1e-300
"""Distances below this are none: their powers of ten would be 0."""
_MOST_DAYS = 1e6
_LONGEST = 16


def nice_step(low: float, high: float, count: int) -> float:
    """1, 2 or 5 times a power of ten, of which about ``count`` fit between; no less than what tells numbers apart."""
    rough = max((high - low) / max(count, 1), math.ulp(max(abs(low), abs(high))), _SHORTEST)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def multiples(low: float, high: float, step: float) -> list[float]:
    """Multiples of ``step`` within [low, high]."""
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten) within [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    return multiples(low, high, nice_step(low, high, count))


def tick_text(value: float) -> str:
    """A number in at most seven characters."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        texts = (f"{value:.{digits}e}".replace("e+0", "e").replace("e-0", "e-") for digits in (1, 0))
        return next((text for text in texts if len(text) <= LABEL_WIDTH), "0")
    return next(text for digits in (4, 3, 2, 1) if len(text := f"{value:.{digits}g}") <= LABEL_WIDTH or digits == 1)


def axis_ticks(kind: str, low: float, high: float, count: int) -> list[Tick]:
    """Places and labels of about ``count`` ticks of an axis of time or steps.

    Args:
        kind: ``step`` (whole numbers alone), ``epoch`` (numbers), ``clock`` (Unix seconds, shown as local time) or
            ``relative`` (seconds since the beginning).
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return []
    if kind == "clock":
        return _clock(low, high, count)
    if kind == "relative":
        step = _time_step(low, high, count)
        return [(at, since(at, step)) for at in multiples(low, high, step)]
    step = nice_step(low, high, count)
    if kind == "step":
        step = max(step, 1.0)
    return _numbers(low, high, step)


def _numbers(low: float, high: float, step: float) -> list[Tick]:
    """Ticks with as many digits as their distance needs; where these find no room, ticks further apart."""
    while True:
        digits = _decimals(step)
        ticks = [(at, f"{at:.{digits}f}") for at in multiples(low, high, step)]
        if all(len(text) <= LABEL_WIDTH + 1 for _, text in ticks):
            return ticks
        if step > high - low:
            return [(at, tick_text(at)) for at, _ in ticks[:1]]  # its last digits are left out
        step = nice_step(0, 2 * step, 1)


def _time_step(low: float, high: float, count: int) -> float:
    rough = (high - low) / max(count, 1)
    if rough < 1:
        return nice_step(low, high, count)
    longest = _TIMES[-1] * float(max(math.floor(rough / _TIMES[-1]), 1))
    return float(next((step for step in _TIMES if step >= rough * 0.999), longest))


def _decimals(step: float) -> int:
    """Decimals that numbers ``step`` apart need."""
    return max(-math.floor(math.log10(max(step, _SHORTEST)) + 1e-9), 0)


def since(seconds: float, step: float = 1.0) -> str:
    """Seconds as ``45s``, ``3:20``, ``2h05`` or ``3d04h``, as fine as ticks ``step`` seconds apart need."""
    sign, whole = "-" if seconds < 0 else "", abs(seconds)
    if not math.isfinite(whole):
        return number(seconds)
    if step < 1:
        text = f"{sign}{whole:.{_decimals(step)}f}s"
        return text if len(text) <= _LONGEST else f"{tick_text(seconds)}s"
    if whole / _DAY > _MOST_DAYS:
        return f"{sign}{tick_text(whole / _DAY)}d"
    total = round(whole)
    if total >= _DAY:
        return f"{sign}{total // _DAY}d{total % _DAY // _HOUR:02d}h" if step < _DAY else f"{sign}{total // _DAY}d"
    if step >= _MINUTE and total >= _HOUR:
        return f"{sign}{total // _HOUR}h{total % _HOUR // _MINUTE:02d}"
    if total >= _HOUR:
        return f"{sign}{total // _HOUR}:{total % _HOUR // _MINUTE:02d}:{total % _MINUTE:02d}"
    return f"{sign}{total // _MINUTE}:{total % _MINUTE:02d}" if total >= _MINUTE else f"{sign}{total}s"


def _clock(low: float, high: float, count: int) -> list[Tick]:
    """Ticks at full units of local time; the date where a day begins. Where there are no dates there are no ticks."""
    low, high = max(low, EARLIEST), min(high, LATEST)
    if high <= low:
        return []
    step = _time_step(low, high, count)
    shift = dates.offset(low)
    return [(at - shift, _clock_text(at - shift, step)) for at in multiples(low + shift, high + shift, step)]


def _clock_text(at: float, step: float) -> str:
    moment = dates.local(round(at, 3))
    if moment is None:
        return dates.NONE
    if step >= _DAY or (moment.hour == moment.minute == moment.second == 0 and step >= _MINUTE):
        return moment.strftime("%m-%d")
    return moment.strftime("%H:%M" if step >= _MINUTE else "%H:%M:%S")


def moment_text(kind: str, at: float) -> str:
    """One place on an axis, in words: what stands in titles."""
    if kind == "clock":
        return dates.text(at, "%m-%d %H:%M:%S")
    if kind == "relative":
        return since(at)
    return f"{kind} {number(at, 6)}"
