"""CPU, memory, disk and processes of this machine, by psutil and /proc."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

MIN_SECONDS = 0.1
"""CPU use is measured over at least this long; the kernel counts in hundredths of a second."""
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the machine's own pid namespace (PROC_PID_INIT_INO in Linux' include/linux/proc_ns.h)."""
_DEAD = frozenset("ZX")


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


class CpuMeter:
    """Use of all cores in percent since the last reading. Thread-safe, for any number of readers.

    psutil's own counter belongs to one reader: two that ask by turns each see the other's short interval, and the
    first answer of a process is always 0.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._then: tuple[float, float, float] | None = None
        self._percent = 0.0

    def percent(self) -> float:
        """The first reading takes a tenth of a second."""
        with self._lock:
            if self._then is None:
                self._then = _cpu_times()
                time.sleep(MIN_SECONDS)
            now = _cpu_times()
            if now[0] - self._then[0] >= MIN_SECONDS:
                busy, total = now[1] - self._then[1], now[2] - self._then[2]
                # Counters of a virtual machine can run backwards when it moves.
                self._percent = min(max(100 * busy / total, 0.0), 100.0) if total > 0 else self._percent
                self._then = now
            return self._percent


def _cpu_times() -> tuple[float, float, float]:
    """(monotonic seconds, busy seconds, all seconds), summed over the cores."""
    times = psutil.cpu_times()
    # Linux counts the time of guests in that of user and nice already.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return time.monotonic(), total - times.idle - getattr(times, "iowait", 0.0), total


_meter = CpuMeter()


def host_snapshot(folder: Path | None = None) -> HostSnapshot:
    """The host now, with the disk that holds ``folder`` (default: the root)."""
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(_existing(folder or Path("/"))))
    return HostSnapshot(
        cpu_percent=_meter.percent(),
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


def process_owner(pid: int) -> str:
    """User name of a process that the GPU driver names, "?" where the number means nothing here.

    In a container the driver may give the host's numbers, which here belong to other processes: there a number
    counts only if that process holds a device file of the driver.
    """
    if not _in_first_namespace() and not _holds_gpu(pid):
        return "?"
    try:
        return psutil.Process(pid).username()
    except (psutil.Error, OSError, ValueError, OverflowError):
        return "?"


@cache
def _in_first_namespace() -> bool:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False


def _holds_gpu(pid: int) -> bool:
    try:
        return any(str(link.readlink()).startswith("/dev/nvidia") for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def process_identity(pid: int) -> str | None:
    """Boot and start tick of a live process, None if there is none: the form that attempts are stored with.

    A pid alone may be somebody else's by now. ``mmtui.services.launch`` has the same few lines, because it runs
    as a file of its own; a test holds the two together.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in _DEAD else f"{boot}:{fields[19]}"


def session_of(pid: int) -> int | None:
    """Session of a process (the pid of the process that began it), None if it is gone."""
    try:
        return os.getsid(pid)
    except (OSError, OverflowError):
        return None


def parent_of(pid: int) -> int | None:
    """Parent of a process, None if it is gone or has none."""
    try:
        return psutil.Process(pid).ppid() or None
    except (psutil.Error, ValueError, OverflowError):
        return None
