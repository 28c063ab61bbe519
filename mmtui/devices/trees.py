"""What trees of processes take of the processor and of memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _THREADS, _RSS = 11, 12, 17, 21
"""Fields of /proc/PID/stat behind the name in brackets."""


@dataclass(frozen=True, slots=True)
class TreeLoad:
    """A process and all that it has started.

    Attributes:
        cpu_percent: of one core since the last look (200 = two cores), None at the first.
        memory: resident bytes; pages that processes share count for each.
    """

    cpu_percent: float | None
    memory: int
    processes: int
    threads: int


class TreeMeter:
    """Looks at trees again and again; each look tells what was used since the one before.

    A list of all processes, as psutil makes one to find children, takes too long for a look every two seconds on a
    busy machine: the kernel names the children of each thread.
    """

    def __init__(self) -> None:
        self._then: dict[int, tuple[float, dict[int, float]]] = {}

    def look(self, pids: Iterable[int]) -> dict[int, TreeLoad]:
        """{pid: load} of those that live."""
        found, now = dict[int, TreeLoad](), dict[int, tuple[float, dict[int, float]]]()
        for pid in pids:
            stats = {member: stat for member in _tree(pid) if (stat := _stat(member)) is not None}
            if pid not in stats:
                continue
            seconds = {member: (stat[_UTIME] + stat[_STIME]) / _TICKS for member, stat in stats.items()}
            now[pid] = time.monotonic(), seconds
            threads = {member: stat[_THREADS] for member, stat in stats.items()}
            found[pid] = TreeLoad(
                self._percent(pid, *now[pid], threads),
                _PAGE * sum(stat[_RSS] for stat in stats.values()),
                len(stats),
                sum(threads.values()),
            )
        self._then = now
        return found

    def _percent(self, pid: int, at: float, seconds: dict[int, float], threads: dict[int, int]) -> float | None:
        before, known = self._then.get(pid, (at, {}))
        if at <= before:
            return None
        # What ends between two looks takes its seconds along: it counts as nothing, not as less. What the look before
        # has missed brings those of its whole life: a thread uses no more than the time there was.
        used = sum(
            min(max(spent - known.get(member, 0.0), 0.0), (at - before) * threads[member])
            for member, spent in seconds.items()
        )
        return 100 * used / (at - before)


def _tree(pid: int) -> Iterator[int]:
    """The process and its descendants, as far as they can be read."""
    waiting, seen = [pid], set[int]()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        yield current
        with suppress(OSError):
            for thread in Path(f"/proc/{current}/task").iterdir():
                with suppress(OSError):  # it has ended meanwhile
                    waiting += map(int, (thread / "children").read_text().split())


def _stat(pid: int) -> list[int] | None:
    """The numbers behind a process's name and state, None if it is gone or a zombie."""
    try:
        # A name may be any bytes: the kernel cuts it in the middle of a character.
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, *numbers = text.rpartition(")")[2].split() or ["X"]
    return None if state in "ZX" else [0, *map(int, numbers)]
