"""The machine at one moment, for front ends: GPUs with whose processes they hold, and the host."""

from __future__ import annotations

import time
from dataclasses import replace

from mmtui.devices import gpu_snapshot, host_snapshot
from mmtui.devices.driver import recording
from mmtui.domain.states import ACTIVE_STATES
from mmtui.domain.views import DeviceSnapshot, GpuView
from mmtui.errors import UnreachableError
from mmtui.paths import Home
from mmtui.store.reader import Reader


def snapshot(home: Home) -> DeviceSnapshot:
    """All devices now; processes of active runs carry the run's id."""
    gpus, note = gpu_snapshot()
    host = host_snapshot(home.root)
    owners = run_pids(home) if any(gpu.processes for gpu in gpus) else {}
    return DeviceSnapshot(
        time=time.time(),
        gpus=tuple(_with_runs(gpu, owners) for gpu in gpus),
        gpu_note=note,
        cpu_percent=host.cpu_percent,
        cpu_count=host.cpu_count,
        load1=host.load1,
        memory_used=host.memory_used,
        memory_total=host.memory_total,
        disk_free=host.disk_free,
        disk_total=host.disk_total,
        simulated=bool(recording()),
    )


def run_pids(home: Home) -> dict[int, str]:
    """{pid of a trainer: id of its run} of all active runs."""
    marks = ",".join("?" * len(ACTIVE_STATES))
    sql = (
        "SELECT a.pid, r.id FROM runs r JOIN attempts a ON a.run_id = r.id AND a.number = r.attempt"
        f" WHERE r.state IN ({marks}) AND a.pid IS NOT NULL"
    )
    try:
        with Reader(home) as reader:
            return {row[0]: str(row[1]) for row in reader.query(sql, [state.value for state in ACTIVE_STATES])}
    except UnreachableError:
        return {}


def _with_runs(gpu: GpuView, owners: dict[int, str]) -> GpuView:
    return replace(gpu, processes=tuple(replace(p, run=owners.get(p.pid, "")) for p in gpu.processes))
