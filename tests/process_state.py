"""State of the test process that outlives a test: what a test leaves changed, the tests behind it would meet.

Which tests those are is decided by pytest-xdist, so such a fault shows only now and then, and in the wrong place.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OF_OTHERS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGALRM)
"""Signals that have no handler, and pytest-timeout's."""
_SIGNALS = {number: signal.getsignal(number) for number in signal.valid_signals() if number not in _OF_OTHERS}
_LIMITS = {limit: resource.getrlimit(limit) for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS)}
_FOLDER = Path.cwd()
_UMASK = os.umask(0)
os.umask(_UMASK)


def restore() -> None:
    """Signal handlers, soft limits, folder and mask of new files as they were when the tests began."""
    for number, handler in _SIGNALS.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)
    for limit, (soft, hard) in _LIMITS.items():
        resource.setrlimit(limit, (soft, hard))
    os.chdir(_FOLDER)
    os.umask(_UMASK)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file can grow beyond ``size`` bytes: the kernel takes part of a write and refuses the rest, as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does: its default would end the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
