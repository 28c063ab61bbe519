"""Which runs were forked from which."""

from __future__ import annotations

from dataclasses import replace

from mmtui.domain.views import ForkView
from mmtui.store import cells
from mmtui.store.events import Query


def children(query: Query, run_id: int) -> tuple[ForkView, ...]:
    """Runs that were forked from a run, oldest first; not those in the trash."""
    sql = "SELECT id, origin FROM runs WHERE parent = ? AND deleted_at IS NULL ORDER BY id"
    ties = ((row[0], fork(row[1], True)) for row in query(sql, [run_id]))
    return tuple(replace(tie, run=str(child)) for child, tie in ties if tie is not None)


def fork(cell: object, here: bool) -> ForkView | None:
    """The checkpoint that a run was forked from."""
    found = cells.mapped(cell)
    if not found:
        return None
    step, global_step = cells.count(found.get("step")), cells.count(found.get("global_step"))
    return ForkView(str(found.get("run", "")), str(found.get("stage", "")), step, global_step, here)
