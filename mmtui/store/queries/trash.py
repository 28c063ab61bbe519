"""Runs that are hidden: removed ones, and those whose rows are still being made."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mmtui.store import cells

if TYPE_CHECKING:
    from mmtui.store.reader import Reader

_HIDDEN = "SELECT id, reason FROM runs WHERE deleted_at IS NOT NULL"


class HiddenRun(NamedTuple):
    """A run that is not listed; its reason tells one that is still being made."""

    run_id: int
    reason: str


def hidden(reader: Reader) -> list[HiddenRun]:
    """All of them."""
    return [HiddenRun(run_id, cells.text(reason)) for run_id, reason in reader.query(_HIDDEN)]


def being_made(reader: Reader) -> list[HiddenRun]:
    """Those whose reason looks like that of a run whose rows are not all there yet."""
    rows = reader.query(f"{_HIDDEN} AND reason LIKE 'its % has not%'")
    return [HiddenRun(run_id, cells.text(reason)) for run_id, reason in rows]
