"""Which runs were forked from which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmtui.domain.views import Relative
from mmtui.store import cells
from mmtui.store.lineage import fork

if TYPE_CHECKING:
    from mmtui.store.reader import Reader


def family(reader: Reader, run_id: int, most: int) -> list[Relative]:
    """The forebears of a run, itself and all runs that descend from it (at most so many), parents first."""
    line = [
        row[0]
        for row in reader.query(
            "WITH RECURSIVE up(id, parent, far) AS (SELECT id, parent, 0 FROM runs WHERE id = ?"
            " UNION SELECT r.id, r.parent, far + 1 FROM runs r JOIN up ON r.id = up.parent WHERE far < 100)"
            " SELECT id FROM up ORDER BY far DESC",
            [run_id],
        )
    ]
    # Depth first, as far as is shown: a sweep may have forked a thousand runs off one.
    below = reader.query(
        "WITH RECURSIVE down(id, depth) AS (SELECT ?, ? UNION ALL SELECT r.id, depth + 1 FROM runs r"
        " JOIN down ON r.parent = down.id WHERE r.deleted_at IS NULL AND depth < 100 ORDER BY 2 DESC, 1)"
        " SELECT id, depth FROM down LIMIT ?",
        [run_id, max(len(line) - 1, 0), most],
    )
    depths = {one: depth for depth, one in enumerate(line)} | {row[0]: row[1] for row in below}
    marks = ",".join("?" * len(depths))
    sql = f"SELECT id, origin, parent, overrides FROM runs WHERE id IN ({marks})"
    told = {row[0]: row for row in reader.query(sql, list(depths))}
    given = {key: cells.texts(row["overrides"]) for key, row in told.items()}
    found = []
    for row in reader.rows(list(depths)):
        key = int(row.id)
        before = given.get(told[key]["parent"])
        changed = () if before is None else tuple(text for text in given[key] if text not in before)
        tie = fork(told[key]["origin"], True)
        found.append(Relative(row=row, depth=depths[key], fork=tie, changed=changed))
    return found
