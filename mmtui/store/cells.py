"""Cells of rows as they should be, or something harmless: one damaged row must not hide the others.

``mmtui doctor`` names rows with damaged cells.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TypeVar

from engine.events.checks import Word
from engine.events.numbers import LARGEST_INTEGER, finite, is_moment
from engine.events.reader import Event
from engine.events.records import Graph, Record, record_of
from engine.json_types import JsonObject
from engine.text import as_text
from mmtui.domain.views import GraphStats, Point


def mapped(cell: object) -> JsonObject:
    """A JSON object; {} where the cell is none."""
    found = _parsed(cell)
    return found if isinstance(found, dict) else {}


def listed(cell: object) -> list[object]:
    """A JSON list; [] where the cell is none."""
    found = _parsed(cell)
    return found if isinstance(found, list) else []


def texts(cell: object) -> tuple[str, ...]:
    """A JSON list of texts."""
    return tuple(as_text(str(item)) for item in listed(cell))


def texts_by_name(cell: object) -> dict[str, str]:
    """A JSON object of texts; anything else in it is left out."""
    return {name: value for name, value in mapped(cell).items() if isinstance(value, str)}


def places(cell: object) -> tuple[str, ...] | None:
    """Names of the places that a run holds; None where the cell does not tell them."""
    found = _parsed(cell)
    return texts(cell) if isinstance(found, list) and all(isinstance(item, str) for item in found) else None


def by_group(settings: Mapping[str, str], prefix: str) -> dict[str, float | None]:
    """{group: number} of the settings ``PREFIX:GROUP``; None where the cell is no number that a limit can be."""
    found = {key.partition(":")[2]: value for key, value in settings.items() if key.startswith(f"{prefix}:")}
    return {group: _limit(value) for group, value in found.items()}


def _limit(cell: str) -> float | None:
    try:
        found = float(cell)
    except ValueError:
        return None
    return found if 0 < found <= LARGEST_INTEGER else None


def words(cell: object) -> dict[str, Word]:
    """A JSON object of texts, truths and numbers; anything else in it is left out."""
    return {name: value for name, value in mapped(cell).items() if value is None or isinstance(value, _WORD)}


_WORD = (str, bool, int, float)
DEEPEST = 100
"""Lists and objects that lie within each other; what lies deeper counts as damaged, whoever walks through it."""


def _parsed(cell: object) -> object:
    if not isinstance(cell, str | bytes):
        return None
    try:
        found: object = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return None if _too_deep(found) else found


def _too_deep(value: object) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        within = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [part for several in within for part in several if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def text(cell: object) -> str:
    """A text; bytes that are none are shown with replacement characters."""
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else "" if cell is None else str(cell)


def number(cell: object) -> float | None:
    """A finite number, None where the cell is none."""
    return finite(cell)


def moment(cell: object) -> float | None:
    """A time in Unix seconds that has a date, None where the cell is none."""
    found = finite(cell)
    return found if found is not None and is_moment(found) else None


def count(cell: object) -> int:
    """A whole number, 0 where the cell is none."""
    found = finite(cell)
    return 0 if found is None or abs(found) > LARGEST_INTEGER else cell if isinstance(cell, int) else int(found)


RecordType = TypeVar("RecordType", bound=Record)


def record(kind: type[RecordType], cell: object) -> RecordType:
    """The values of an event, those that are what docs/events.md says of their kind; others are left out."""
    return kind(mapped(cell))


def event(row: Iterable[object]) -> Event:
    """kind, seq, t, stage, step, global_step and values of an event, each cell what it should be."""
    kind, seq, t, stage, step, global_step, body = row
    steps = (count(step), count(global_step))
    return Event(text(kind), count(seq), moment(t) or 0.0, text(stage), *steps, record_of(text(kind), mapped(body)))


def point(row: Iterable[object]) -> Point | None:
    """step, value, t, attempt, stage, global_step of a metric; None where the value is none."""
    step, value, t, attempt, stage, global_step = row
    found = finite(value)
    if found is None:
        return None
    return Point(count(step), found, moment(t) or 0.0, count(attempt), text(stage), count(global_step))


def graph(run_id: int, row: Iterable[object]) -> GraphStats:
    """step, t and values of a ``graph`` event."""
    step, t, body = row
    return GraphStats(str(run_id), count(step), moment(t) or 0.0, record(Graph, body))
