"""CPU, memory and disk of this machine, by psutil."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    """The host at one moment; sizes in bytes, CPU use in percent of all cores since the last call."""

    cpu_percent: float
    cpu_count: int
    load1: float
    memory_used: int
    memory_total: int
    disk_free: int
    disk_total: int


def host_snapshot(folder: Path | None = None) -> HostSnapshot:
    """The host now, with the disk that holds ``folder`` (default: the root)."""
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(_existing(folder or Path("/"))))
    return HostSnapshot(
        cpu_percent=psutil.cpu_percent(interval=None),
        cpu_count=psutil.cpu_count() or 1,
        load1=os.getloadavg()[0],
        memory_used=memory.total - memory.available,
        memory_total=memory.total,
        disk_free=disk.free,
        disk_total=disk.total,
    )


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
