"""The tables, as SQLModel classes. Private to ``mmtui.store``: everybody else sees ``mmtui.domain.views``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, PrimaryKeyConstraint, Text, text
from sqlmodel import Field, SQLModel

metadata: MetaData = SQLModel.metadata


WAITING_COLUMNS = (
    *("priority", "position", "not_before", "run_group", "after", "if_failed", "wanted", "work"),
    *("shared_stages", "launcher", "deleted_at", "reason"),
)
"""Everything the scheduler reads of a queued run."""


class Run(SQLModel, table=True):
    """One run: a resolved recipe and its state. ``id`` is never used again."""

    __tablename__ = "runs"
    __table_args__: Any = (
        Index("ix_runs_queue", "state", "priority", "position"),
        Index("ix_runs_parent", "parent", sqlite_where=text("parent IS NOT NULL")),
        Index("ix_runs_waiting", *WAITING_COLUMNS, sqlite_where=text("state = 'queued'")),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    name: str = ""
    recipe: str = ""
    run_group: str = ""
    state: str = "queued"
    reason: str = ""
    priority: int = 0
    position: float = 0.0
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    seed: int = 0
    gpus: str = Field(default="[]", sa_column=Column(Text, nullable=False))
    tags: str = Field(default="[]", sa_column=Column(Text, nullable=False))
    config: str = Field(default="{}", sa_column=Column(Text, nullable=False))
    overrides: str = Field(default="[]", sa_column=Column(Text, nullable=False))
    code: str = Field(default="{}", sa_column=Column(Text, nullable=False))
    total_steps: int = 0
    attempt: int = 0
    not_before: float = 0.0
    vanished: int = 0
    vanished_at_step: int = -1
    error: str = Field(default="", sa_column=Column(Text, nullable=False))
    stage: str = ""
    step: int = 0
    global_step: int = 0
    loss: float | None = None
    miou: float | None = None
    last_event_at: float | None = None
    deleted_at: float | None = None
    after: str = Field(default="[]", sa_column=Column(Text, nullable=False, server_default="[]"))
    if_failed: str = Field(default="hold", sa_column_kwargs={"server_default": "hold"})
    note: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    wanted: float = Field(default=1.0, sa_column_kwargs={"server_default": "1.0"})
    work: str = Field(default="", sa_column_kwargs={"server_default": ""})
    shared_stages: str = Field(default="{}", sa_column=Column(Text, nullable=False, server_default="{}"))
    time_limit: float = Field(default=0.0, sa_column_kwargs={"server_default": "0.0"})
    launcher: str = Field(default="{}", sa_column=Column(Text, nullable=False, server_default="{}"))
    parent: int | None = None
    parent_step: int | None = None
    origin: str = Field(default="{}", sa_column=Column(Text, nullable=False, server_default="{}"))
    doubts: str = Field(default="[]", sa_column=Column(Text, nullable=False, server_default="[]"))


class Need(SQLModel, table=True):
    """What runs of the same work (``engine.config.determining.work_name``) took on one model of device."""

    __tablename__ = "needs"
    __table_args__: Any = (PrimaryKeyConstraint("work", "device"), {"sqlite_with_rowid": False})

    work: str
    device: str
    bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    body: str = Field(sa_column=Column(Text, nullable=False))
    measured_at: float
    run_id: int


class Setting(SQLModel, table=True):
    """What holds for the queue as a whole: ``closed`` (why nothing starts), ``limit:GROUP`` (most runs at once),
    ``budget:GROUP`` (device hours), ``failfast:GROUP``, ``looked_at`` (when somebody last looked)."""

    __tablename__ = "settings"
    __table_args__: Any = ({"sqlite_with_rowid": False},)

    key: str = Field(primary_key=True)
    value: str = Field(sa_column=Column(Text, nullable=False))


class Stage(SQLModel, table=True):
    """Progress of one stage of a run."""

    __tablename__ = "stages"

    run_id: int = Field(foreign_key="runs.id", primary_key=True)
    name: str = Field(primary_key=True)
    position: int = 0
    status: str = "pending"
    step: int = 0
    total_steps: int = 0
    step_offset: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    seconds_per_step: float | None = None


class Attempt(SQLModel, table=True):
    """One process life of a run. ``ingested`` is the byte offset up to which its events are in the database."""

    __tablename__ = "attempts"

    run_id: int = Field(foreign_key="runs.id", primary_key=True)
    number: int = Field(primary_key=True)
    pid: int | None = None
    pid_identity: str = ""
    spawned_at: float = 0.0
    ended_at: float | None = None
    outcome: str = ""
    exit_code: int | None = None
    resumed_stage: str = ""
    resumed_step: int = 0
    resumed_global_step: int = -1
    host: str = ""
    device: str = ""
    ingested: int = 0
    corrupt_lines: int = 0
    kill_at: float | None = None
    job: str = Field(default="", sa_column_kwargs={"server_default": ""})


class Metric(SQLModel, table=True):
    """One value of one metric."""

    __tablename__ = "metrics"
    __table_args__: Any = (
        PrimaryKeyConstraint("run_id", "name", "global_step", "attempt"),
        {"sqlite_with_rowid": False},
    )

    run_id: int = Field(foreign_key="runs.id")
    name: str
    global_step: int
    attempt: int
    stage: str = ""
    step: int = 0
    t: float = 0.0
    value: float | None = None


class MetricBucket(SQLModel, table=True):
    """A summary of consecutive points of a series (``mmtui.store.pyramid``)."""

    __tablename__ = "metric_buckets"
    __table_args__: Any = (
        PrimaryKeyConstraint("run_id", "name", "level", "attempt", "bucket"),
        {"sqlite_with_rowid": False},
    )

    run_id: int = Field(foreign_key="runs.id")
    name: str
    level: int
    attempt: int
    bucket: int
    first_step: int
    last_step: int
    low: float
    high: float
    first: float
    last: float
    count: int
    stage: str | None = None
    t: float


class Event(SQLModel, table=True):
    """An event that is no metric: graph statistics, projections, warnings, errors, checkpoints, unknown kinds."""

    __tablename__ = "events"
    __table_args__: Any = (Index("ix_events_run_kind", "run_id", "kind", "id"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    run_id: int = Field(foreign_key="runs.id")
    attempt: int = 0
    seq: int = 0
    kind: str = ""
    stage: str = ""
    step: int = 0
    global_step: int = 0
    t: float = 0.0
    body: str = Field(default="{}", sa_column=Column("values", Text, nullable=False))


class Evaluation(SQLModel, table=True):
    """The confusion matrix of one evaluation: K x K int64, little-endian, rows = truth."""

    __tablename__ = "evaluations"

    run_id: int = Field(foreign_key="runs.id", primary_key=True)
    global_step: int = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    stage: str = Field(default="", primary_key=True)
    step: int = 0
    t: float = 0.0
    classes: str = Field(default="[]", sa_column=Column(Text, nullable=False))
    matrix: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    split: str = "val"
    images: int = 0
    predictions: str = ""


class Transition(SQLModel, table=True):
    """Audit row of one change of state."""

    __tablename__ = "transitions"
    __table_args__: Any = (Index("ix_transitions_run", "run_id", "id"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    run_id: int = Field(foreign_key="runs.id")
    t: float = 0.0
    event: str = ""
    before: str = ""
    after: str = ""
    reason: str = ""
    actor: str = ""


class Wish(SQLModel, table=True):
    """What a person asked for; the supervisor carries it out and deletes the row."""

    __tablename__ = "wishes"
    __table_args__: Any = ({"sqlite_autoincrement": True},)

    id: int | None = Field(default=None, primary_key=True)
    run_id: int = Field(foreign_key="runs.id")
    t: float = 0.0
    verb: str = ""
    arguments: str = Field(default="{}", sa_column=Column(Text, nullable=False))


class DeviceSample(SQLModel, table=True):
    """Use of one device at one moment, taken while runs are active. ``device`` is a GPU's UUID, or ``host``."""

    __tablename__ = "device_samples"
    __table_args__: Any = (PrimaryKeyConstraint("t", "device"), {"sqlite_with_rowid": False})

    t: float
    device: str
    utilisation: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    power_watts: float | None = None
    temperature: float | None = None
