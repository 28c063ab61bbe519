"""The machine at one moment, for front ends: GPUs with whose processes they hold, and the host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from mmtui.devices import gpu_snapshot, host_snapshot
from mmtui.devices.driver import driver
from mmtui.devices.host import parent_of, process_identity, session_of
from mmtui.devices.trees import TreeMeter
from mmtui.domain.views import DeviceSnapshot, GpuView, TrainerView
from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.store.queries import active
from mmtui.store.session import reading

_MAX_GENERATIONS = 8


def snapshot(home: Home, owners: Mapping[int, str] | None = None) -> DeviceSnapshot:
    """All devices now; processes of active runs carry the run's id.

    Args:
        home: the data directory.
        owners: {pid of a trainer: id of its run}; default: asked of the database if a GPU has processes.
    """
    source = driver()
    answer, host = source.look(), host_snapshot(home.root)
    if owners is None:
        owners = run_pids(home) if any(gpu.processes for gpu in answer.gpus) else {}
    return DeviceSnapshot(
        time=time.time(),
        gpus=tuple(with_runs(gpu, owners) for gpu in answer.gpus),
        gpu_note=answer.note,
        cpu_percent=host.cpu_percent,
        cpu_count=host.cpu_count,
        load1=host.load1,
        memory_used=host.memory_used,
        memory_total=host.memory_total,
        disk_free=host.disk_free,
        disk_total=host.disk_total,
        simulated=source.simulated,
    )


def run_pids(home: Home) -> dict[int, str]:
    """{pid of a live trainer: id of its run} of all active runs; none where the database cannot be read."""
    try:
        with reading(home) as reader:
            known = active.trainers(reader)
    except MmtuiError:
        return {}
    # Without a supervisor a run can stay "running" for days while its pid goes to somebody else.
    return {one.pid: str(one.run_id) for one in known if process_identity(one.pid) == one.identity}


class Trainers:
    """The trainers that work on this machine; each look tells what they used since the one before."""

    def __init__(self, home: Home) -> None:
        self.home, self._meter = home, TreeMeter()

    def look(self) -> tuple[TrainerView, ...]:
        """All of them, by run; the first look knows nothing of their use of the processor."""
        owners = run_pids(self.home)
        loads = self._meter.look(owners)
        found = (
            TrainerView(owners[pid], pid, load.cpu_percent, load.memory, load.processes, load.threads)
            for pid, load in loads.items()
        )
        return tuple(sorted(found, key=lambda trainer: int(trainer.run)))


def gpu_numbers() -> dict[str, int]:
    """{UUID: number} of the GPUs that the driver knows now."""
    return {gpu.uuid: gpu.index for gpu in gpu_snapshot()[0]}


def run_of(pid: int, owners: Mapping[int, str]) -> str:
    """The run that a process belongs to, "" if none of ours.

    A trainer leads a session of its own, so that its workers are known by their session; one that has made itself
    another session is known by its ancestors.
    """
    current: int | None = pid
    for _ in range(_MAX_GENERATIONS):
        if not owners or current is None:
            return ""
        found = owners.get(current) or owners.get(session_of(current) or 0)
        if found:
            return found
        current = parent_of(current)
    return ""


def with_runs(gpu: GpuView, owners: Mapping[int, str]) -> GpuView:
    """The GPU with the run's id on each process of ours."""
    return replace(gpu, processes=tuple(replace(p, run=run_of(p.pid, owners)) for p in gpu.processes))
