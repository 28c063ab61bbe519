"""Who reads together reads at one moment: inside ``snapshot`` every ``reading`` is one transaction.

SQLite shows a read transaction the database as it was when the first row was read, whatever is committed meanwhile. As
long as one is open, the write-ahead log cannot be emptied: a snapshot is for one picture, and never for a loop.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmtui.paths import Home
from mmtui.store.reader import Reader


class _Held(threading.local):
    """The readers of the snapshots of this thread, by database. Another thread, one begun inside included, has none."""

    def __init__(self) -> None:
        self.readers: dict[Path, Reader] = {}


_held = _Held()


@contextmanager
def reading(home: Home) -> Iterator[Reader]:
    """The reader of the snapshot that this thread is in; outside of one a reader of its own, each query for itself."""
    held = _held.readers.get(home.database)
    if held is not None:
        yield held
        return
    with Reader(home) as reader:
        yield reader


@contextmanager
def snapshot(home: Home) -> Iterator[Reader]:
    """All that this thread reads of a data directory within this block is of one moment, whichever service reads it.

    The transaction begins with the first query, so that a block that reads nothing opens nothing, and ends with the
    block. A snapshot inside another one is part of it. Writers have connections of their own: what one writes within
    the block is read after it.
    """
    if inside(home):
        yield _held.readers[home.database]
        return
    with Reader(home, one_moment=True) as reader:
        _held.readers[home.database] = reader
        try:
            yield reader
        finally:
            del _held.readers[home.database]


def inside(home: Home) -> bool:
    """Whether this thread is in a snapshot: who waits for a change there would wait for ever."""
    return home.database in _held.readers
