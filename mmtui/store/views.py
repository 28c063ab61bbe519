"""Views for ``mmtui query``: temporary ones of the reading connection, so no database has to change for them.

docs/schema.md tells what they hold.
"""

from __future__ import annotations

import json
import sqlite3

from mmtui.store.confusion import class_shares, matrix_of
from mmtui.store.filters import KEPT

_VIEWS = f"""
CREATE TEMP VIEW live_runs AS
    SELECT *, ended_at - started_at AS took FROM main.runs WHERE deleted_at IS NULL;
CREATE TEMP VIEW live_metrics AS
    SELECT m.* FROM main.metrics m JOIN live_runs r ON r.id = m.run_id WHERE {KEPT.format(t="m")};
CREATE TEMP VIEW class_iou AS
    WITH kept AS (
        SELECT v.*, row_number() OVER (
            PARTITION BY v.run_id ORDER BY v.global_step DESC, v.stage = 'evaluate' DESC, v.attempt DESC
        ) = 1 AS latest
        FROM main.evaluations v JOIN live_runs r ON r.id = v.run_id WHERE {KEPT.format(t="v")}
    )
    SELECT k.run_id, k.stage, k.step, k.global_step, c.key AS class,
        coalesce(json_extract(k.classes, '$[' || c.key || ']'), c.key) AS name,
        json_extract(c.value, '$[0]') AS iou, json_extract(c.value, '$[1]') AS pixels, k.latest
    FROM kept k, json_each(mm_class_iou(k.matrix)) c;
"""


def add_views(connection: sqlite3.Connection) -> None:
    """Make the views on a connection; that of a read-only database may have temporary ones."""
    connection.create_function("mm_class_iou", 1, _class_iou, deterministic=True)
    # Changed later, this would drop the views. In memory, because a file would grow unbounded.
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.executescript(_VIEWS)


def _class_iou(blob: bytes) -> str:
    """JSON ``[[IoU or null, pixels in the truth], ...]``."""
    matrix = matrix_of(blob)
    return json.dumps([[share, sum(row)] for share, row in zip(class_shares(matrix), matrix, strict=True)])
