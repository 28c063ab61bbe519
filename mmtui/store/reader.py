"""Reading: one read-only sqlite3 connection, no SQLAlchemy, so that ``mmtui ls`` starts quickly."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from engine.events import records
from engine.events.reader import Event
from mmtui.domain.filters import Node, Operand
from mmtui.domain.states import RunState
from mmtui.domain.views import (
    AttemptView,
    Bucket,
    ClassTable,
    GraphStats,
    Point,
    RunDetail,
    RunRow,
    RunTerms,
    StageView,
)
from mmtui.store import bests, buckets, cells, filters, lineage, proof
from mmtui.store import rows as made
from mmtui.store.confusion import class_shares, matrix_of
from mmtui.store.connection import Connection
from mmtui.store.events import Reported, reported
from mmtui.store.filters import KEPT

_RUN_COLUMNS = (
    "id, name, recipe, run_group, state, reason, error, stage, global_step, total_steps, created_at, started_at,"
    " ended_at, seed, gpus, tags, loss, miou, attempt, last_event_at, not_before, doubts"
)

_LAST_STEP = 2**62
# A skip scan over the primary key: one probe per name instead of one per point. Bytes, of a damaged row, come behind
# every text.
_NAMES = (
    "WITH RECURSIVE names(name) AS (SELECT min(name) FROM metrics WHERE run_id = ?1 AND name > ''"
    " UNION ALL SELECT (SELECT min(name) FROM metrics WHERE run_id = ?1 AND name > names.name) FROM names"
    " WHERE typeof(names.name) = 'text') SELECT name FROM names WHERE typeof(name) = 'text'"
)


class Reader(Connection):
    """A read-only view of one data directory: what is asked of its runs."""

    def ids(self) -> list[int]:
        """Ids of all runs, ascending."""
        return [row[0] for row in self.query("SELECT id FROM runs WHERE deleted_at IS NULL ORDER BY id")]

    def runs(
        self, *, states: Sequence[str] | None, limit: int | None, offset: int = 0, newest_first: bool = True
    ) -> list[RunRow]:
        """Runs by id."""
        where, parameters = "deleted_at IS NULL", list[object]()
        if states is not None:
            where += f" AND state IN ({','.join('?' * len(states))})"
            parameters += states
        order = "DESC" if newest_first else "ASC"
        sql = f"SELECT {_RUN_COLUMNS} FROM runs WHERE {where} ORDER BY id {order} LIMIT ? OFFSET ?"
        rows = self.query(sql, [*parameters, -1 if limit is None else limit, offset])
        now = time.time()
        return [made.run_row(row, now) for row in rows]

    def select(
        self,
        node: Node | None,
        sort: Sequence[tuple[Operand, bool]],
        columns: Sequence[Operand] = (),
        limit: int | None = None,
        offset: int = 0,
    ) -> list[tuple[RunRow, tuple[object, ...]]]:
        """Runs that a filter lets pass, with the values of chosen columns.

        Args:
            sort: what to sort by, and whether the largest comes first; runs without a value come last. Then by id,
                newest first.
        """
        condition, parameters = filters.where(node) if node is not None else ("1", [])
        chosen = [filters.expression(operand) for operand in columns]
        ordered = [filters.expression(operand) for operand, _ in sort]
        extra = "".join(f", ({sql})" for sql, _ in chosen)
        order = "".join(
            f"({sql}) IS NULL, ({sql}) {'DESC' if down else 'ASC'}, "
            for (sql, _), (_, down) in zip(ordered, sort, strict=True)
        )
        values = [value for _, several in chosen for value in several] + parameters
        values += [value for _, several in ordered for value in (*several, *several)]
        sql = f"SELECT {_RUN_COLUMNS}{extra} FROM runs WHERE deleted_at IS NULL AND {condition}"
        rows = self.search(
            f"{sql} ORDER BY {order}id DESC LIMIT ? OFFSET ?", [*values, -1 if limit is None else limit, offset]
        )
        now, first = time.time(), len(_RUN_COLUMNS.split(","))
        return [(made.run_row(row, now), tuple(row)[first:]) for row in rows]

    def count_where(self, node: Node) -> int:
        """Number of runs that a filter lets pass."""
        condition, parameters = filters.where(node)
        return int(self.search(f"SELECT count(*) FROM runs WHERE deleted_at IS NULL AND {condition}", parameters)[0][0])

    def config_keys(self) -> list[str]:
        """Every key that some run's recipe has, as dotted path."""
        sql = f"SELECT DISTINCT t.fullkey FROM runs, {filters.CONFIG} t WHERE t.type NOT IN ('object', 'array')"
        return [filters.key_name(row[0]) for row in self.query(sql)]

    def rows(self, ids: Sequence[int]) -> list[RunRow]:
        """Runs with these ids, in this order; ids that do not exist are left out."""
        marks, now = ",".join("?" * len(ids)), time.time()
        found = {row["id"]: row for row in self.query(f"SELECT {_RUN_COLUMNS} FROM runs WHERE id IN ({marks})", ids)}
        return [made.run_row(found[run_id], now) for run_id in ids if run_id in found]

    def settings(self) -> dict[str, str]:
        """What holds for the queue as a whole, by key."""
        return {row[0]: cells.text(row[1]) for row in self.query("SELECT key, value FROM settings")}

    def waiting_ids(self) -> list[int]:
        """Queued and held runs in queue order."""
        where = "state IN ('queued', 'held') AND deleted_at IS NULL"
        return [row[0] for row in self.query(f"SELECT id FROM runs WHERE {where} ORDER BY priority DESC, position, id")]

    def counts(self) -> dict[str, int]:
        """Number of runs in each state that has some; a damaged state counts as what its row is shown as."""
        counts: Counter[str] = Counter()
        for state, count in self.query("SELECT state, count(*) FROM runs WHERE deleted_at IS NULL GROUP BY state"):
            counts[state if state in made.STATES else RunState.FAILED.value] += count
        return dict(counts)

    def has_events(self, run_id: int) -> bool:
        """Whether anything that a run's trainer told is stored; what was said here of its file does not count."""
        sql = "SELECT 1 FROM events WHERE run_id = ?1 AND seq > 0 UNION ALL SELECT 1 FROM metrics WHERE run_id = ?1"
        return bool(self.query(f"{sql} LIMIT 1", [run_id]))

    def run(self, run_id: int) -> RunDetail | None:
        """Everything about one run."""
        terms = "wanted, time_limit, launcher, after, not_before"
        columns = f"{_RUN_COLUMNS}, config, overrides, code, {terms}, note, parent, origin"
        rows = self.query(f"SELECT {columns} FROM runs WHERE id = ?", [run_id])
        if not rows:
            return None
        row = rows[0]
        told, code = reported(self.query, run_id), cells.words(row["code"])
        stages, attempts = self.stages(run_id, told), proof.with_verdicts(told, code, self.attempts(run_id))
        files, started = self.home.run(str(run_id)), told.last(records.RunStarted)
        return RunDetail(
            row=made.run_row(row, time.time()),
            config=cells.mapped(row["config"]),
            overrides=cells.texts(row["overrides"]),
            stages=stages,
            attempts=attempts,
            error=cells.text(row["error"]),
            code=code,
            host={"name": attempts[-1].host, "device": attempts[-1].device} if attempts else {},
            paths={
                "run": str(files.root),
                "recipe": str(files.recipe),
                "checkpoints": str(files.checkpoints),
                "predictions": str(files.predictions),
                "log": str(files.log(max(cells.count(row["attempt"]), 1))),
            },
            eta_seconds=made.run_eta(stages),
            last_event_at=cells.moment(row["last_event_at"]),
            warnings=told.warnings(),
            classes=tuple(started.classes or ()),
            versions={str(k): str(v) for k, v in (started.versions or {}).items()},
            data_fingerprint=told.last(records.Data).fingerprint or "",
            replay=told.replay(),
            terms=RunTerms(
                gpus=cells.number(row["wanted"]) or 1.0,
                time_limit_seconds=cells.number(row["time_limit"]) or None,
                launcher=cells.mapped(row["launcher"]) or None,
                after=cells.texts(row["after"]),
                not_before=cells.moment(row["not_before"]) or None,
            ),
            note=cells.text(row["note"]),
            parent=lineage.fork(row["origin"], row["parent"] is not None and bool(self.rows([row["parent"]]))),
            children=lineage.children(self.query, run_id),
            global_step=cells.count(row["global_step"]),
            progress_note=made.note(told.last(records.Progress), row["state"]),
            best=bests.best(told),
        )

    def stages(self, run_id: int, told: Reported) -> tuple[StageView, ...]:
        """Stages of a run, in order."""
        rows = self.query("SELECT * FROM stages WHERE run_id = ? ORDER BY position", [run_id])
        reused = told.reused()
        views = tuple(made.stage_view(row, reused.get(row["name"], "")) for row in rows)
        return bests.with_early_stops(told, views)

    def attempts(self, run_id: int) -> tuple[AttemptView, ...]:
        """Attempts of a run, oldest first."""
        rows = self.query("SELECT * FROM attempts WHERE run_id = ? ORDER BY number", [run_id])
        return tuple(
            AttemptView(
                number=cells.count(row["number"]),
                pid=None if row["pid"] is None else cells.count(row["pid"]),
                started_at=cells.moment(row["spawned_at"]) or 0.0,
                ended_at=cells.moment(row["ended_at"]),
                outcome=cells.text(row["outcome"]),
                resumed_stage=cells.text(row["resumed_stage"]),
                resumed_step=cells.count(row["resumed_step"]),
                host=cells.text(row["host"]),
                device=cells.text(row["device"]),
            )
            for row in rows
        )

    def metric_names(self, run_id: int) -> list[str]:
        """Metrics a run has logged, by name."""
        return [row[0] for row in self.query(_NAMES, [run_id])]

    def points(self, run_id: int, metric: str, *, all_attempts: bool, stage: str | None = None) -> Iterator[Point]:
        """Points of a metric by step; tails that a later attempt did again are left out unless asked for."""
        sql = "SELECT step, value, t, attempt, stage, global_step FROM metrics m WHERE run_id = ? AND name = ?"
        sql += " AND value IS NOT NULL"
        parameters: list[object] = [run_id, metric]
        if not all_attempts:
            sql += f" AND {KEPT.format(t='m')}"
        if stage is not None:
            sql += " AND stage = ?"
            parameters.append(stage)
        for row in self.query(f"{sql} ORDER BY global_step, attempt", parameters):
            if (point := cells.point(row)) is not None:
                yield point

    def series(
        self, run_id: int, metric: str, most: int, stage: str | None = None, within: tuple[int, int] | None = None
    ) -> tuple[tuple[Bucket, ...], int]:
        """A metric in about ``most`` buckets for a chart, and the number of its points, of all attempts."""
        return self.several_series([(run_id, metric)], most, stage, {(run_id, metric): within})[run_id, metric]

    def several_series(
        self,
        names: Sequence[tuple[int, str]],
        most: int,
        stage: str | None = None,
        within: Mapping[tuple[int, str], tuple[int, int] | None] = {},
    ) -> dict[tuple[int, str], tuple[tuple[Bucket, ...], int]]:
        """The same for (run, metric) of several, in three statements and one for each run."""
        resumed = {run_id: self.resumed_at(run_id) for run_id in dict.fromkeys(run_id for run_id, _ in names)}
        return buckets.several(self.query, names, resumed, most, stage, within)

    def resumed_at(self, run_id: int) -> dict[int, int]:
        """{attempt: global step it went on from}."""
        sql = "SELECT number, resumed_global_step FROM attempts WHERE run_id = ? AND resumed_global_step >= 0"
        return {cells.count(row[0]): cells.count(row[1]) for row in self.query(sql, [run_id])}

    def graphs(self, run_id: int, limit: int, until: int | None = None) -> list[GraphStats]:
        """The newest graph statistics up to a global step, oldest first."""
        sql = (
            "SELECT step, t, \"values\" FROM events e WHERE run_id = ? AND kind = 'graph'"
            f" AND {KEPT.format(t='e')} AND global_step <= ? ORDER BY id DESC LIMIT ?"
        )
        rows = self.query(sql, [run_id, _LAST_STEP if until is None else until, limit])
        return [cells.graph(run_id, row) for row in reversed(rows)]

    def events(self, run_id: int, kind: str | None = None) -> list[Event]:
        """Events that are no metrics, oldest first."""
        sql = 'SELECT kind, seq, t, stage, step, global_step, "values" FROM events WHERE run_id = ?'
        parameters: list[object] = [run_id]
        if kind is not None:
            sql += " AND kind = ?"
            parameters.append(kind)
        rows = self.query(f"{sql} ORDER BY id", parameters)
        return [cells.event(row) for row in rows]

    def class_table(self, run_id: int, step: int | None = None, until: int | None = None) -> ClassTable | None:
        """Per-class IoU of the newest evaluation, of the one at step ``step`` of its stage, or up to a global step."""
        rows = self.query(
            "SELECT *, (SELECT r.doubts FROM runs r WHERE r.id = v.run_id) AS doubts FROM evaluations v"
            f" WHERE run_id = ? AND {KEPT.format(t='v')} ORDER BY global_step, stage = 'evaluate', attempt",
            [run_id],
        )
        if step is not None:
            rows = [row for row in rows if cells.count(row["step"]) == step]
        if until is not None:
            rows = [row for row in rows if cells.count(row["global_step"]) <= until]
        if not rows:
            return None
        history = [class_shares(matrix_of(row["matrix"])) for row in rows]
        return made.class_table(str(run_id), rows[-1], history, cells.texts(rows[-1]["doubts"]))
