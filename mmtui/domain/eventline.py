"""One line of an event file, made fit for the database. Pure: what a trainer wrote is not to be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LARGEST = 2**63 - 1
"""Largest integer that SQLite stores."""


def accept(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """The event with every value storable, or None if its frame (seq, t, step ...) makes no sense.

    Numbers inside ``values`` that are not finite or too large become None; half characters are replaced.
    """
    seq, step = whole(event.get("seq")), whole(event.get("step", 0))
    global_step, t = whole(event.get("global_step", 0)), finite(event.get("t"))
    if seq is None or step is None or global_step is None or t is None:
        return None
    values = event.get("values")
    try:
        body = _storable(values) if isinstance(values, Mapping) else {}
    except RecursionError:
        return None
    stage = event.get("stage")
    return {
        "v": event.get("v"),
        "seq": seq,
        "t": t,
        "kind": _text(str(event.get("kind", ""))),
        "stage": _text(stage) if isinstance(stage, str) else "",
        "step": step,
        "global_step": global_step,
        "values": body,
    }


def whole(value: Any) -> int | None:
    """A count from 0 to the largest integer SQLite stores, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    return int(value) if 0 <= value <= LARGEST else None


def finite(value: Any) -> float | None:
    """A finite number as float, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _storable(value: Any) -> Any:
    if isinstance(value, float):  # most are: first
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(str(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -LARGEST <= value <= LARGEST else None
    return value


def _text(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
