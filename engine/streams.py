"""Standard output and error as whoever started this program has left them. No torch in here."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def wait_for_room() -> None:
    """Make writing wait while the other end is full.

    A terminal or a pipe may be shared with a program that has set it not to wait (``O_NONBLOCK``). What then does not
    fit is lost: Python's text streams forget it and report no error.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, no file of the system, or none at all
            os.set_blocking(stream.fileno(), True)
