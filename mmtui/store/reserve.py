"""Space set aside for the day the disk is full: enough for the database to say so."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from mmtui.paths import Home

RESERVE_BYTES = 8 * 2**20
"""The state of every run, its reason, and what was asked for take kilobytes; a write-ahead log a few megabytes."""
PORTION_BYTES = RESERVE_BYTES // 4
"""Given back at once: trainers that still run may take it, and the database must get another chance after that."""
PLENTY = 4
"""The reserve is set aside only where this many times its size is free."""
FULL_BYTES = 1 << 20
"""Less than this is called full."""


class DiskReserve:
    """A file of zeros that shrinks when nothing else fits, and grows again when there is room."""

    def __init__(self, home: Home) -> None:
        self.path = home.reserve

    @property
    def spent(self) -> bool:
        """Whether some of it had to be given back."""
        try:
            return self.path.stat().st_size < RESERVE_BYTES
        except OSError:
            return False

    def hold(self) -> None:
        """Set the space aside, if it is not and there is plenty."""
        with suppress(OSError):
            if self.path.exists() and not self.spent:
                return
            if shutil.disk_usage(self.path.parent).free < PLENTY * RESERVE_BYTES:
                return
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)

    def release(self) -> bool:
        """Give a portion back if the disk is full; True if there was one."""
        with suppress(OSError):
            size = self.path.stat().st_size
            if size and shutil.disk_usage(self.path.parent).free < FULL_BYTES:
                os.truncate(self.path, max(size - PORTION_BYTES, 0))
                return True
        return False
