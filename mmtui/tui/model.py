"""What the screen looks at, and what it is told: plain values that the feed's thread hands over."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmtui.domain.views import ClassTable, DeviceSnapshot, GraphStats, RunDetail, RunRow, Series, SupervisorStatus
from mmtui.services.grouping import Group


@dataclass(frozen=True)
class TableRow:
    """One line.

    Attributes:
        key: stands for the line: the run's id, or the group's.
        run: the run that the panels show when the cursor is here; of a group the newest.
        group: what is folded here, None for a run.
        depth: 1 for a member of a group that is open.
        cells: chosen columns, as text.
    """

    key: str
    run: RunRow
    group: Group | None = None
    depth: int = 0
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What the screen looks at."""

    run_id: str | None = None
    metric: str = "loss"
    offset: int = 0
    buckets: int = 200
    filter: str = ""
    sort: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    group: str = ""
    opened: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Snapshot:
    """Everything one screen needs, read at one moment: all that the database holds, in one transaction.

    Attributes:
        run_id: the run that everything from ``detail`` to ``log`` is about.
        problem: why there are no rows, "" if they were read.
        trouble: why there is nothing about the run.
        device_trouble: why nothing is known of the devices.
    """

    wanted: Wanted = Wanted()
    rows: tuple[TableRow, ...] = ()
    pinned: tuple[str, ...] = ()
    total: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    supervisor: SupervisorStatus | None = None
    run_id: str | None = None
    detail: RunDetail | None = None
    series: Series | None = None
    metrics: tuple[str, ...] = ()
    graph: GraphStats | None = None
    classes: ClassTable | None = None
    log: tuple[str, ...] = ()
    devices: DeviceSnapshot | None = None
    problem: str = ""
    trouble: str = ""
    device_trouble: str = ""
