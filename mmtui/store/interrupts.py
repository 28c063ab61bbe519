"""Ctrl-C while SQLite works: its interpreter asks nobody, and takes an exception of a callback for an error in SQL."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interruptible(connection: sqlite3.Connection, every: int = 0) -> Iterator[None]:
    """Within this block SIGINT ends the statement that runs, and the block with whatever the handler of SIGINT raises.

    In other threads than the main one, and where SIGINT has no Python handler, nothing changes.

    Args:
        every: operations of SQLite's virtual machine after which Python looks for signals. 0: only where SQLite calls
            a function of ours or gives a row, which is enough for statements that end by themselves.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    raised: list[BaseException] = []

    def stop(number: int, frame: FrameType | None) -> None:
        connection.interrupt()
        try:
            handler(number, frame)
        except BaseException as error:
            # Raised inside a callback it does not arrive: sqlite3 makes an error of its own of it.
            raised.append(error)
            raise

    signal.signal(signal.SIGINT, stop)
    if every:
        connection.set_progress_handler(_look, every)
    try:
        yield
    except Exception:
        if raised:
            raise raised[0] from None
        raise
    finally:
        signal.signal(signal.SIGINT, handler)
        if every:
            connection.set_progress_handler(None, 0)


def _look() -> int:
    """Python runs handlers of signals when it enters a function: this one. 0 lets SQLite go on."""
    return 0
