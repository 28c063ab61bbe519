"""The memory budget of decoded data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from engine.errors import DataError

GIB = 1024**3
SHARE = 0.5
"""Of the machine's memory, for decoded data; the rest is for networks, the system and others."""
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def check_budget(what: str, needed: int, budget: int | None, advice: str) -> None:
    """Refuse data that would not fit, before anything is decoded.

    Raises:
        DataError: ``needed`` bytes exceed ``budget``; the message names both sizes, the cache and ``advice``.
    """
    if budget is not None and needed > budget:
        raise DataError(
            f"{what} needs {needed / GIB:.2f} GiB decoded, more than the {budget / GIB:.2f} left of"
            " runtime.memory_budget_gib, which is at most half of this machine's memory: raise the budget, set"
            f" runtime.data_cache to a folder for decoded data (empty = the usual one), {advice}."
        )


def data_budget(gib: float, held: int = 0, processes: int = 1) -> int:
    """Bytes of further decoded data that one process may hold in memory.

    Args:
        gib: what the recipe allows all data of the process, GiB.
        held: bytes of data that are held already.
        processes: how many of them share the machine.
    """
    allowed = min(int(gib * GIB), int(SHARE * machine_memory() / processes))
    return max(allowed - held, 0)


def machine_memory() -> int:
    """Bytes that this process and its like may use: the machine's, or what a job's control group is limited to."""
    own = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([own, *_group_limits()])


def _group_limits() -> Iterator[int]:
    """Limits of the control groups above this process, of both versions of them; none where they cannot be read."""
    with suppress(OSError, ValueError):
        for line in _OWN_GROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root, name = (_GROUPS / "memory", "memory.limit_in_bytes") if controllers else (_GROUPS, "memory.max")
            group = root / path.lstrip("/")
            # In a container the path may be the host's, which is not there; the root is the container's own group.
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # "max" is no limit
                    yield int((folder / name).read_text())
                if folder == root:
                    break
