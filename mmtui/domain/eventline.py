"""One line of an event file, made fit for the database. Pure: what a trainer wrote is not to be trusted."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

from engine.text import as_text
from mmtui.domain.dates import is_moment
from mmtui.domain.eventvalues import LARGEST, LARGEST_STEP, LONGEST_TEXT, finite, sound, whole

LONGEST_WORD = 128
"""Characters of a kind or of a stage's name."""
_NAMES_TOLD = 3


def accept(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """The event with every value what it should be, or None if its frame (seq, t, step ...) makes no sense.

    Numbers inside ``values`` that are not finite or too large become None; half characters are replaced; values that
    are none of their kind are left out.
    """
    return checked(event)[0]


def checked(event: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """``accept``, and what is wrong with an event in words: why it is none, or what of it was left out; "" if nothing.

    Args:
        event: as ``engine.events.parse_line`` gives it.
    """
    kind, stage = event.get("kind", ""), event.get("stage")
    numbers = {name: whole(event.get(name, 0)) for name in ("seq", "step", "global_step")}
    t = finite(event.get("t"))
    for name, found in numbers.items():
        if found is None or found > LARGEST_STEP:
            return None, f"its {name} is no whole number from 0 to 2^53"
    if t is None or not is_moment(t):
        return None, "its t is no Unix time in seconds of the years 1 to 9999"
    if not isinstance(kind, str) or len(kind) > LONGEST_WORD or (isinstance(stage, str) and len(stage) > LONGEST_WORD):
        return None, f"its kind or its stage has more than {LONGEST_WORD} characters"
    values = event.get("values")
    try:
        storable = _storable(values) if isinstance(values, Mapping) else {}
    except RecursionError:
        return None, "its values lie too deep in each other"
    body, left = sound(kind, storable)
    frame = {"v": event.get("v"), "seq": numbers["seq"], "t": t, "kind": _text(kind)}
    where = {"stage": _text(stage) if isinstance(stage, str) else "", **numbers}
    return {**frame, **where, "values": body}, _left_out(kind, left)


def _left_out(kind: str, names: list[str]) -> str:
    if not names:
        return ""
    told = ", ".join(repr(name[:40]) for name in names[:_NAMES_TOLD])
    more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
    return f"left out of its '{kind}': {told}{more}, no values of this kind (docs/events.md)"


def _storable(value: Any) -> Any:
    if isinstance(value, float):  # most are: first
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(value if len(value) <= LONGEST_TEXT else f"{value[: LONGEST_TEXT - 1]}…")
    if isinstance(value, Mapping):
        return {_text(str(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return value if _integers(value) else [_storable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -LARGEST <= value <= LARGEST else None
    return value


def _integers(items: list[Any]) -> bool:
    """Whether a list holds integers that can be stored and nothing else; found in C, as a matrix has millions."""
    try:
        array("q", items)
    except (TypeError, OverflowError):
        return False
    return True


def _text(text: str) -> str:
    return text if text.isascii() else as_text(text)
