"""Signals that end a command while SQLite works.

Its interpreter asks nobody, and takes an exception of a callback for an error in SQL.
"""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, whoever ends a program, and a terminal that is gone."""


@contextmanager
def interruptible(connection: sqlite3.Connection, every: int = 0) -> Iterator[None]:
    """Within this block ``SIGNALS`` end the statement that runs, and the block with whatever their handler raises.

    In other threads than the main one, and for a signal that has no Python handler, nothing changes.

    Args:
        every: operations of SQLite's virtual machine after which Python looks for signals. 0: only where SQLite calls
            a function of ours or gives a row, which is enough for statements that end by themselves.
    """
    handlers = {int(number): handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    if threading.current_thread() is not threading.main_thread() or not handlers:
        yield
        return
    raised: list[BaseException] = []

    def stop(number: int, frame: FrameType | None) -> None:
        connection.interrupt()
        try:
            handlers[number](number, frame)
        except BaseException as error:
            # Raised inside a callback it does not arrive: sqlite3 makes an error of its own of it.
            raised.append(error)
            raise

    for number in handlers:
        signal.signal(number, stop)
    if every:
        connection.set_progress_handler(_look, every)
    try:
        yield
    except Exception:
        if raised:
            raise raised[0] from None
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if every:
            connection.set_progress_handler(None, 0)


def _look() -> int:
    """Python runs handlers of signals when it enters a function: this one. 0 lets SQLite go on."""
    return 0
