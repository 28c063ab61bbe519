"""Attempts whose devices were sampled."""

from __future__ import annotations

from mmtui.store import samples
from mmtui.store.reader import Reader


def sampled_before(reader: Reader, moment: float) -> list[tuple[int, int]]:
    """(run, attempt) of the attempts that have ended, began before a Unix time and have samples that are as old."""
    first = samples.oldest(reader)
    if first is None or first >= moment:
        return []
    sql = "SELECT run_id, number FROM attempts WHERE spawned_at < ? AND ended_at >= ?"
    return [(row[0], row[1]) for row in reader.query(sql, [moment, first])]
