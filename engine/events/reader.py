"""The only parser of event files: a line becomes an event that is what it should be, or a sentence why it is none.

What a trainer wrote is not to be trusted: nobody behind this asks again.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from engine.events.checks import LONGEST_TEXT
from engine.events.lines import whole_lines
from engine.events.numbers import LARGEST_INTEGER, LARGEST_STEP, finite, is_moment, whole
from engine.events.records import Record, record_of
from engine.json_types import JsonObject
from engine.text import as_text

LONGEST_WORD = 128
"""Characters of a kind or of a stage's name."""
NO_EVENT = "it is no event: no JSON object with seq, kind and a number t"
_NAMES_TOLD = 3


class Event(NamedTuple):
    """One line of an event file.

    Attributes:
        kind: as it was written; ``record`` is a plain ``Record`` where nobody knows it.
        seq: its number in the run, ascending.
        t: Unix time in seconds.
        stage: "" outside one.
        step: finished steps of the stage.
        global_step: finished steps of the run.
        record: its values.
        printed: bytes that the output file held, None where the line does not tell.
    """

    kind: str
    seq: int
    t: float
    stage: str
    step: int
    global_step: int
    record: Record
    printed: int | None = None

    def left_out(self) -> str:
        """What of its values is none of its kind, a sentence; "" if nothing is."""
        names = self.record.refused
        if not names:
            return ""
        told = ", ".join(repr(name[:40]) for name in names[:_NAMES_TOLD])
        more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
        return f"left out of its '{self.kind}': {told}{more}, no values of this kind (docs/events.md)"


def raw_line(line: bytes) -> JsonObject | None:
    """The JSON object of a line with ``seq``, ``kind`` and a number ``t``, unchecked; None if it is none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    if type(event.get("seq")) is not int or type(event.get("t")) not in (int, float):
        return None
    return event


def parse_line(line: bytes, kinds: Collection[str] | None = None) -> Event | str:
    """The event of a line, or why it is none, in words.

    Absent steps are 0. Numbers within ``values`` that are not finite or too large become None; half characters are
    replaced; values that are none of their kind are left out.

    Args:
        line: with or without its newline.
        kinds: of events of other kinds only the frame is read, and no values; None: all are wanted.
    """
    found = raw_line(line)
    return NO_EVENT if found is None else event_of(found, kinds)


def event_of(found: Mapping[str, object], kinds: Collection[str] | None = None) -> Event | str:
    """The same for an object that ``raw_line`` gave."""
    kind, stage, t = found.get("kind", ""), found.get("stage"), finite(found.get("t"))
    steps = []
    for name in ("seq", "step", "global_step"):
        number = whole(found.get(name, 0))
        if number is None or number > LARGEST_STEP:
            return f"its {name} is no whole number from 0 to 2^53"
        steps.append(number)
    if t is None or not is_moment(t):
        return "its t is no Unix time in seconds of the years 1 to 9999"
    stage = stage if isinstance(stage, str) else ""
    if not isinstance(kind, str) or len(kind) > LONGEST_WORD or len(stage) > LONGEST_WORD:
        return f"its kind or its stage has more than {LONGEST_WORD} characters"
    values = found.get("values") if kinds is None or kind in kinds else None
    try:
        told = {_text(str(key)): _storable(item) for key, item in values.items()} if isinstance(values, dict) else {}
        record = record_of(kind, told)
    except RecursionError:
        return "its values lie too deep in each other"
    seq, step, global_step = steps
    return Event(_text(kind), seq, t, _text(stage), step, global_step, record, whole(found.get("printed")))


def _storable(value: object) -> object:
    if isinstance(value, float):  # most are: first
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(value if len(value) <= LONGEST_TEXT else f"{value[: LONGEST_TEXT - 1]}…")
    if isinstance(value, dict):
        return {_text(str(key)): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return value if _integers(value) else [_storable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -LARGEST_INTEGER <= value <= LARGEST_INTEGER else None
    return value


def _integers(items: list[int]) -> bool:
    """Whether a list holds integers that can be stored and nothing else; found in C, as a matrix has millions."""
    try:
        array("q", items)
    except (TypeError, OverflowError):
        return False
    return True


def _text(text: str) -> str:
    return text if text.isascii() else as_text(text)


def read_events(
    path: Path, offset: int = 0, kinds: Collection[str] | None = None
) -> Iterator[tuple[int, Event | None]]:
    """Complete lines from byte ``offset``: (offset behind the line, event or None where it cannot be read).

    Args:
        path: an event file.
        offset: where to begin, behind a newline.
        kinds: as in ``parse_line``.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for length, line in whole_lines(file):
            offset += length
            event = parse_line(line, kinds) if line is not None else NO_EVENT
            yield offset, event if isinstance(event, Event) else None
