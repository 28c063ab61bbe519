"""Work that is counted instead of timed: the same on every machine, however slow or busy it is.

What is counted are the steps of Python's and of SQLite's interpreters. What one of Python's steps does in C (a sort, a
NumPy operation) is not seen: these counts show how work grows, not what it costs. Costs are told by ``benchmarks/``.
"""

from __future__ import annotations

import gc
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any
from unittest import mock


@dataclass
class Work:
    """Steps taken.

    Attributes:
        python: bytecodes of this thread.
        sqlite: operations of SQLite's virtual machine, on connections that were opened meanwhile, to the nearest
            ``GRAIN`` a statement.
    """

    python: int = 0
    sqlite: int = 0


GRAIN = 10


def python_steps(function: Callable[[], object]) -> int:
    """How many bytecodes a call takes, the second one: the first may import modules and fill caches."""
    function()
    return _traced(function)


def work(function: Callable[[], object]) -> Work:
    """What a call takes that opens the connections it needs; the second one, too."""
    function()
    found = Work()

    def step() -> int:
        found.sqlite += GRAIN
        return 0

    class Counting(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.set_progress_handler(step, GRAIN)

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        return Counting(*args, **options)

    with mock.patch.object(sqlite3, "connect", connect):
        found.python = _traced(function, but=step)
    return found


def _traced(function: Callable[[], object], *, but: Callable[[], object] | None = None) -> int:
    """The bytecodes of a call, but for one function's and for collecting garbage that others have left."""
    taken, left_out = 0, None if but is None else but.__code__

    def step(frame: FrameType, event: str, _: object) -> Any:
        nonlocal taken
        if frame.f_code is left_out:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        taken += event == "opcode"
        return step

    before, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(step)
    try:
        function()
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
    return taken
