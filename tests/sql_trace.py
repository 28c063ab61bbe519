"""What a piece of the program asks SQLite: every connection that is opened, and every statement, by thread."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Trace:
    """Connections and statements since the last ``clear``."""

    opened: list[str] = field(default_factory=list)
    """The thread of each connection."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """(thread, statement)."""

    def clear(self) -> None:
        """Forget what was."""
        self.opened.clear()
        self.asked.clear()

    def connections(self, of: Callable[[str], bool] = bool) -> int:
        """Connections opened by the threads whose names pass."""
        return sum(map(of, self.opened))

    def statements(self, of: Callable[[str], bool] = bool) -> list[str]:
        """Statements of the threads whose names pass, in their order."""
        return [text for thread, text in self.asked if of(thread)]

    def moments(self, of: Callable[[str], bool] = bool) -> int:
        """Read transactions that were begun."""
        return sum(text.startswith("BEGIN") for text in self.statements(of))


@contextmanager
def traced() -> Iterator[Trace]:
    """Everything that this process asks of SQLite through Python's module, in any thread."""
    trace, connect = Trace(), sqlite3.connect

    def connected(*values: Any, **named: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*values, **named)
        trace.opened.append(threading.current_thread().name)
        connection.set_trace_callback(lambda text: trace.asked.append((threading.current_thread().name, text)))
        return connection

    sqlite3.connect = connected  # type: ignore[assignment]
    try:
        yield trace
    finally:
        sqlite3.connect = connect
