"""What happened over a run's steps: evaluations, match graphs, epochs. Queries through a ``Reader``."""

from __future__ import annotations

from engine.events.records import Projection, StageData
from mmtui.domain.views import Change, Embeddings, EvaluationMark, GraphStats
from mmtui.store import cells
from mmtui.store.filters import KEPT
from mmtui.store.reader import Reader

_LAST_STEP = 2**62


def evaluations(reader: Reader, run_id: int) -> list[EvaluationMark]:
    """Where a run was evaluated, oldest first; tails that a later attempt did again are left out."""
    sql = f"SELECT global_step, t, stage FROM evaluations v WHERE run_id = ? AND {KEPT.format(t='v')}"
    rows = reader.query(f"{sql} ORDER BY global_step, attempt", [run_id])
    return [EvaluationMark(cells.count(row[0]), cells.moment(row[1]) or 0.0, cells.text(row[2])) for row in rows]


def images(reader: Reader, run_id: int) -> dict[str, tuple[int, int]]:
    """{stage: (training images of a step, of an epoch)}, of stages whose trainer told."""
    sql = "SELECT stage, \"values\" FROM events WHERE run_id = ? AND kind = 'stage_data' ORDER BY id"
    found: dict[str, tuple[int, int]] = {}
    for stage, body in reader.query(sql, [run_id]):
        told = cells.record(StageData, body)
        if told.images_per_step and told.images_per_epoch:
            found[cells.text(stage)] = (told.images_per_step, told.images_per_epoch)
    return found


def projection(reader: Reader, run_id: int, until: int | None = None) -> Embeddings | None:
    """The newest embeddings and edges of a match graph, up to a global step."""
    sql = (
        "SELECT step, \"values\" FROM events e WHERE run_id = ? AND kind = 'projection'"
        f" AND {KEPT.format(t='e')} AND global_step <= ? ORDER BY id DESC LIMIT 1"
    )
    rows = reader.query(sql, [run_id, _LAST_STEP if until is None else until])
    return Embeddings(cells.count(rows[0]["step"]), cells.record(Projection, rows[0]["values"])) if rows else None


def graphs_over_time(reader: Reader, run_id: int, every: int, until: int | None = None) -> list[GraphStats]:
    """The last graph of each ``every`` steps, oldest first."""
    sql = (
        'SELECT step, t, "values" FROM events WHERE id IN (SELECT max(id) FROM events e WHERE run_id = ?'
        f" AND kind = 'graph' AND {KEPT.format(t='e')} AND global_step <= ? GROUP BY step / ?) ORDER BY id"
    )
    rows = reader.query(sql, [run_id, _LAST_STEP if until is None else until, min(max(every, 1), _LAST_STEP)])
    return [cells.graph(run_id, row) for row in rows]


def comparable(reader: Reader, run_id: int, limit: int) -> list[str]:
    """Ids of runs that have succeeded and were evaluated on the same classes, newest first."""
    rows = reader.query("SELECT classes FROM evaluations WHERE run_id = ? ORDER BY global_step DESC LIMIT 1", [run_id])
    if not rows:
        return []
    sql = (
        "SELECT id FROM runs WHERE state = 'succeeded' AND deleted_at IS NULL AND id != ? AND EXISTS"
        " (SELECT 1 FROM evaluations v WHERE v.run_id = runs.id AND v.classes = ?) ORDER BY id DESC LIMIT ?"
    )
    return [str(row[0]) for row in reader.query(sql, [run_id, rows[0][0], limit])]


def changes(reader: Reader, run_id: int) -> list[Change]:
    """Every change of a run's state, oldest first."""
    sql = 'SELECT t, actor, event, "before", "after", reason FROM transitions WHERE run_id = ? ORDER BY id'
    return [
        Change(cells.moment(row[0]) or 0.0, *map(cells.text, row[1:]))
        for row in map(tuple, reader.query(sql, [run_id]))
    ]
