"""Cells of rows as they should be, or something harmless: one damaged row must not hide the others.

``mmtui doctor`` names rows with damaged cells.
"""

from __future__ import annotations

import json
from typing import Any

from mmtui.domain.states import RunState


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
    return tuple(str(item) for item in listed(cell))


def _parsed(cell: Any) -> Any:
    try:
        return json.loads(cell)
    except (TypeError, ValueError, RecursionError):
        return None


def text(cell: Any) -> str:
    """A text; bytes that are none are shown with replacement characters."""
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else "" if cell is None else str(cell)


def number(cell: Any) -> float | None:
    """A number, None where the cell is none."""
    return float(cell) if isinstance(cell, int | float) else None


def count(cell: Any) -> int:
    """A whole number, 0 where the cell is none."""
    return int(cell) if isinstance(cell, int | float) else 0


JSON_COLUMNS = ("tags", "config", "overrides", "gpus", "code", "after", "shared_stages", "launcher", "origin")
NUMBER_COLUMNS = (
    "created_at",
    "started_at",
    "ended_at",
    "miou",
    "loss",
    "seed",
    "position",
    "priority",
    "wanted",
    "not_before",
)
TEXT_COLUMNS = ("name", "recipe", "reason", "error", "stage", "run_group", "note")
DAMAGED = (
    "SELECT id, "
    + " || ".join(
        [
            *(f"CASE WHEN json_valid({name}) THEN '' ELSE '{name} ' END" for name in JSON_COLUMNS),
            *(
                f"CASE WHEN typeof({name}) IN ('real', 'integer', 'null') THEN '' ELSE '{name} ' END"
                for name in NUMBER_COLUMNS
            ),
            *(f"CASE WHEN typeof({name}) = 'text' THEN '' ELSE '{name} ' END" for name in TEXT_COLUMNS),
            f"CASE WHEN state IN ({', '.join(repr(state.value) for state in RunState)}) THEN '' ELSE 'state ' END",
        ]
    )
    + " AS damaged FROM runs WHERE damaged != '' AND deleted_at IS NULL ORDER BY id"
)
"""(run, names of its damaged cells, each with a blank behind it)."""
