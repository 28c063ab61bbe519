"""Names of what is being written that tell who writes it: a dead process goes on with nothing."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from pathlib import Path

from mmtui.services.launch import boot_id
from mmtui.services.unfinished import lives

_MARK = re.compile(r"writer-([0-9a-f]{8})-([0-9]{1,10})(?![0-9])")


def mark() -> str:
    """Part of a hidden name, for what this process writes."""
    return f"writer-{_machine()}-{os.getpid()}"


def is_dead(name: str) -> bool:
    """Whether a name tells of a process that has ended. One elsewhere is not seen here: nothing is known of it."""
    found = _MARK.search(name)
    return found is not None and found[1] == _machine() and not lives(int(found[2]))


@functools.cache
def _machine() -> str:
    """Where a pid means a process: a machine since it was started, and within it what a container sees."""
    try:
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        processes = ""
    return hashlib.blake2s(f"{socket.gethostname()} {boot_id()} {processes}".encode(), digest_size=4).hexdigest()
