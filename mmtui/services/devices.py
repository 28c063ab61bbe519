"""The machine at one moment, for front ends: GPUs with whose processes they hold, and the host."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from mmtui.devices import host_snapshot
from mmtui.devices.driver import driver
from mmtui.devices.host import parent_of, process_identity, session_of
from mmtui.devices.trees import TreeMeter
from mmtui.domain.views import DeviceSnapshot, GpuView, TrainerView
from mmtui.errors import MmtuiError
from mmtui.paths import Home
from mmtui.store.queries import active
from mmtui.store.session import reading

SAMPLE_SECONDS = 2.0
HISTORY = 150
MAX_SHARE = 0.05
"""A sampler spends at most this share of its time in the driver: with a sick GPU one look can take seconds."""
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


def trainers(home: Home, meter: TreeMeter) -> tuple[TrainerView, ...]:
    """The trainers that work on this machine, by run."""
    owners = run_pids(home)
    loads = meter.look(owners)
    found = (
        TrainerView(owners[pid], pid, load.cpu_percent, load.memory, load.processes, load.threads)
        for pid, load in loads.items()
    )
    return tuple(sorted(found, key=lambda trainer: int(trainer.run)))


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


class Sampler:
    """Snapshots taken in a thread of their own, so that a slow driver never holds up a screen.

    Args:
        home: the data directory.
        interval: seconds between snapshots; longer by itself while the driver is slow.
        notify: called from the thread after each snapshot.
    """

    def __init__(self, home: Home, interval: float = SAMPLE_SECONDS, notify: Callable[[], None] | None = None) -> None:
        self._home, self._interval, self._notify = home, interval, notify
        self._history: deque[DeviceSnapshot] = deque(maxlen=HISTORY)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; again after ``stop`` is fine."""
        if self._thread is None:
            self._stop = threading.Event()  # a thread that a hanging driver kept past stop() has its own, and ends
            self._thread = threading.Thread(target=self._run, name="devices", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End; returns once the thread is done or, if the driver hangs, after a second."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=1)
            self._thread = None

    def latest(self) -> DeviceSnapshot | None:
        """The newest snapshot, None before the first."""
        with self._lock:
            return self._history[-1] if self._history else None

    def history(self) -> tuple[DeviceSnapshot, ...]:
        """The newest snapshots, oldest first."""
        with self._lock:
            return tuple(self._history)

    def _run(self) -> None:
        stop = self._stop
        while not stop.is_set():
            taken = snapshot(self._home)
            with self._lock:
                self._history.append(taken)
            if self._notify is not None:
                self._notify()
            stop.wait(max(self._interval, driver().cost_seconds / MAX_SHARE))
