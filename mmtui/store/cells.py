"""Cells of rows as they should be, or something harmless: one damaged row must not hide the others.

``mmtui doctor`` names rows with damaged cells.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.text import as_text
from mmtui.domain.dates import is_moment
from mmtui.domain.eventvalues import LARGEST, finite, sound
from mmtui.domain.views import GraphStats, Point


def mapped(cell: Any) -> dict[str, Any]:
    """A JSON object; {} where the cell is none."""
    found = _parsed(cell)
    return found if isinstance(found, dict) else {}


def listed(cell: Any) -> list[Any]:
    """A JSON list; [] where the cell is none."""
    found = _parsed(cell)
    return found if isinstance(found, list) else []


def texts(cell: Any) -> tuple[str, ...]:
    """A JSON list of texts."""
    return tuple(as_text(str(item)) for item in listed(cell))


def places(cell: Any) -> tuple[str, ...] | None:
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
    return found if 0 < found <= LARGEST else None


def words(cell: Any) -> dict[str, Any]:
    """A JSON object of texts, truths and numbers; anything else in it is left out."""
    return {name: value for name, value in mapped(cell).items() if value is None or isinstance(value, _WORD)}


_WORD = (str, bool, int, float)
DEEPEST = 100
"""Lists and objects that lie within each other; what lies deeper counts as damaged, whoever walks through it."""


def _parsed(cell: Any) -> Any:
    try:
        found = json.loads(cell)
    except (TypeError, ValueError, RecursionError):
        return None
    return None if _too_deep(found) else found


def _too_deep(value: Any) -> bool:
    level = [value] if _holds(value) else []
    for _ in range(DEEPEST):
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one) if _holds(part)]
        if not level:
            return False
    return True


def _holds(value: Any) -> bool:
    return isinstance(value, dict | list)


def text(cell: Any) -> str:
    """A text; bytes that are none are shown with replacement characters."""
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else "" if cell is None else str(cell)


def number(cell: Any) -> float | None:
    """A finite number, None where the cell is none."""
    return finite(cell)


def moment(cell: Any) -> float | None:
    """A time in Unix seconds that has a date, None where the cell is none."""
    found = finite(cell)
    return found if found is not None and is_moment(found) else None


def count(cell: Any) -> int:
    """A whole number, 0 where the cell is none."""
    found = finite(cell)
    return 0 if found is None or abs(found) > LARGEST else cell if isinstance(cell, int) else int(found)


def values(kind: str, cell: Any) -> dict[str, Any]:
    """The values of an event, those that are what docs/events.md says of their kind; others are left out."""
    return sound(kind, mapped(cell))[0]


def event(row: sqlite3.Row) -> dict[str, Any]:
    """A row of the table of events, each cell what it should be."""
    found = {name: read(row[name]) for name, read in _EVENT.items() if name in row.keys()}  # noqa: SIM118
    return {**found, "values": values(found.get("kind", ""), row["values"])}


def point(row: Iterable[Any]) -> Point | None:
    """step, value, t, attempt, stage, global_step of a metric; None where the value is none."""
    step, value, t, attempt, stage, global_step = row
    found = finite(value)
    if found is None:
        return None
    return Point(count(step), found, moment(t) or 0.0, count(attempt), text(stage), count(global_step))


def graph(run_id: int, row: sqlite3.Row) -> GraphStats:
    """step, t and values of a ``graph`` event."""
    step, t, body = row
    return GraphStats(str(run_id), count(step), moment(t) or 0.0, values("graph", body))


_EVENT: dict[str, Callable[[Any], Any]] = {
    "id": count,
    "attempt": count,
    "seq": count,
    "kind": text,
    "stage": text,
    "step": count,
}
_EVENT |= {"global_step": count, "t": lambda cell: moment(cell) or 0.0}
