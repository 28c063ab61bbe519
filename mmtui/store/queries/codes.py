"""The frozen code of runs: what their rows say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.json_types import JsonObject
from mmtui.store import cells

if TYPE_CHECKING:
    from mmtui.store.reader import Reader


def of_run(reader: Reader, run_id: int) -> JsonObject:
    """What was frozen for a run; {} if there is no such run."""
    rows = reader.query("SELECT code FROM runs WHERE id = ?", [run_id])
    return cells.mapped(rows[0][0]) if rows else {}


def in_use(reader: Reader) -> list[JsonObject]:
    """What was frozen for each listed run."""
    return [cells.mapped(row[0]) for row in reader.query("SELECT code FROM runs WHERE deleted_at IS NULL")]
